"""Reading cine stacks from DICOM folders: ``read_cine`` in ``cine.py`` is the way in."""
