"""What the experts of one trained model do: `python -m spectra_exp.analyze run=PATH`."""
