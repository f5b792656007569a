"""From data sets to slabs: cases, splits, model grid, store, transforms, phantoms."""
