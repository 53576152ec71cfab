"""The study: methods × scenarios × seeds on one machine, with the arithmetic of the live federation."""
