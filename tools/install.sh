#!/bin/sh
# Installs the bundle that it lies in, without network: ./install.sh --target DIR. PYTHON names the interpreter.
set -eu
fail() { echo "error: $1" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
[ $# -eq 2 ] && [ "$1" = --target ] && [ -n "$2" ] || { echo "usage: $0 --target DIR" >&2; exit 2; }
python=$(command -v "${PYTHON:-python3}") || fail "PYTHON: no ${PYTHON:-python3} here"
# Its own name for itself, which is absolute, for the commands that are made.
python=$("$python" - @PYTHON@ "$here/left_out.txt" <<'CHECK'
import sys
here = "%d.%d" % sys.version_info[:2]
if here != sys.argv[1]:
    sys.exit("error: PYTHON: the bundle is for Python %s, and this is %s; make it for that one" % (sys.argv[1], here))
from importlib import metadata
try:
    torch = metadata.version("torch")
except metadata.PackageNotFoundError:
    sys.exit("error: torch: not installed for this Python; the bundle has none, since it must suit the machine's driver")
if not (2, 9) <= tuple(int(n) for n in torch.split("+")[0].split(".")[:2]) <= (2, 13):
    sys.exit("error: torch: %s is here; 2.9 to 2.13 are known to work" % torch)
# What the target's list had when the bundle was made.
try:
    from pip._vendor.packaging.requirements import Requirement
except ImportError:
    sys.exit("error: pip: not installed for this Python")
lacking = []
for needed in map(Requirement, open(sys.argv[2])):
    try:
        version = metadata.version(needed.name)
    except metadata.PackageNotFoundError:
        lacking.append("%s (not installed)" % needed)
        continue
    if not needed.specifier.contains(version, prereleases=True):
        lacking.append("%s (%s is here)" % (needed, version))
if lacking:
    sys.exit("error: the bundle leaves out what its HAVE named, and this Python lacks %s; install that, or make the "
        "bundle with this machine's own `pip list`" % ", ".join(lacking))
print(sys.executable)
CHECK
)
mkdir -p "$2" && target=$(cd "$2" && pwd) || fail "--target: cannot make $2"
[ -w "$target" ] || fail "--target: cannot write to $target"
"$python" -m pip install --quiet --no-index --no-deps --no-warn-script-location --disable-pip-version-check \
	--root-user-action=ignore --upgrade --target "$target" "$here"/wheels/*.whl
mkdir -p "$target/spectra-exp" "$target/bin"
# What an earlier bundle had and this one has not must not stay beside it; what runs have made there does.
tar -tzf "$here/source.tar.gz" | cut -d/ -f1 | sort -u | while read -r name; do rm -rf "$target/spectra-exp/$name"; done
tar -xzf "$here/source.tar.gz" -C "$target/spectra-exp"
for name in "spectra-exp -m spectra_exp" "python"; do
	set -- $name
	command=$1; shift
	cat > "$target/bin/$command" <<RUN
#!/bin/sh
PYTHONPATH="$target/spectra-exp/src:$target\${PYTHONPATH:+:\$PYTHONPATH}" exec "$python" $* "\$@"
RUN
	chmod +x "$target/bin/$command"
done
echo "$target/bin/spectra-exp"
