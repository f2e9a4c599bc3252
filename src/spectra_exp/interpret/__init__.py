"""What the experts of one trained model do: `python -m spectra_exp.interpret run=PATH`."""
