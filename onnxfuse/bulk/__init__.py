"""Models on millions of rows: read in numbered parts, each written once, by this process or by many."""
