"""The study's report: from frames to tables, claims, pictures and files; nothing is trained or evaluated here.

A *cell* is one method in one scenario under one pair of seeds (split, training). The Dice of a method is the mean over
seeds of the mean over sites of the mean over test patients, of sites that are no attackers. It is the global model's;
of a method without one, each site's own model's on its own patients. Intervals draw patients
(``model.statistics.paired_bootstrap``), the same way every time.
"""
