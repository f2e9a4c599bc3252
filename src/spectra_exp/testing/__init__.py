"""Contract tests for plug-ins: `from spectra_exp.testing import check_router`."""

from spectra_exp.testing.routers import check_router

__all__ = ["check_router"]
