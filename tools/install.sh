#!/bin/sh
# Installs the bundle that it lies in, without network: ./install.sh --target DIR. PYTHON names the interpreter.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
[ $# -eq 2 ] && [ "$1" = --target ] || { echo "usage: $0 --target DIR" >&2; exit 2; }
python=$(command -v "${PYTHON:-python3}") || { echo "error: PYTHON: no ${PYTHON:-python3} here" >&2; exit 2; }
"$python" - @PYTHON@ <<'CHECK'
import sys
from importlib import metadata
here = "{}.{}".format(*sys.version_info[:2])
if here != sys.argv[1]:
    sys.exit(f"error: PYTHON: the bundle is for Python {sys.argv[1]}, and this is {here}; make it for that one")
try:
    torch = metadata.version("torch")
except metadata.PackageNotFoundError:
    sys.exit("error: torch: not installed for this Python; the bundle has none, since it must suit the machine's driver")
if not (2, 9) <= tuple(int(n) for n in torch.split("+")[0].split(".")[:2]) <= (2, 13):
    sys.exit(f"error: torch: {torch} is here; 2.9 to 2.13 are known to work")
CHECK
mkdir -p "$2"
target=$(cd "$2" && pwd)
"$python" -m pip install --quiet --no-index --no-deps --no-warn-script-location --disable-pip-version-check \
	--root-user-action=ignore --upgrade --target "$target" "$here"/wheels/*.whl
mkdir -p "$target/spectra-exp" "$target/bin"
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
