"""The paper's results: which runs they are made of, how far these are, and the page, tables and figures of them."""
