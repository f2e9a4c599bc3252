"""Whether a sparse model's routing is sound: `spectra-exp doctor`, and `doctor()` for any model in Python."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`doctor`, imported when it is first asked for: it needs transformers, which takes seconds to import."""
    if name == "doctor":
        from spectra_exp.doctor.examine import doctor

        return doctor
    raise AttributeError(f"module 'spectra_exp.doctor' has no attribute '{name}'")
