"""Figures of the paper: what each shows is computed first, as a page of panels, and drawn from that alone."""
