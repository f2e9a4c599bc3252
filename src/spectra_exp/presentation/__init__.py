"""How numbers, tables, charts and pages look, whatever they are of."""
