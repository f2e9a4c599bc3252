"""What every router keeps, asked of this one."""

from my_router import MyRouter

from spectra_exp.testing import check_router


def test_it_keeps_the_contract():
    check_router(MyRouter)
