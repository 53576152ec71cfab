"""The arithmetic: tensors and arrays in, tensors and numbers out. No files, no network, no clock."""
