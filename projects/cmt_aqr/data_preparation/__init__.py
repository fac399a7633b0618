"""Making and converting data: info files, the object database, synthetic and single-frame roots."""
