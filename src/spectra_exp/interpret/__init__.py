"""What the experts of one trained model do: `spectra-exp interpret run=PATH`."""
