"""One file per kind of archive: each finds its patients, ``write.py`` makes the de-identified copy of them."""
