"""Files in and out: volumes, masks, records."""
