"""Group-robust methods and poisoning defences on pooled data, one file each, and their stages."""
