"""The federation's label map: what each voxel value of a mask means.

The order is ACDC's (Bernard et al., IEEE TMI 2018): 0 background, 1 RV cavity, 2 LV myocardium, 3 LV cavity.
"""

RV, MYO, LV = 1, 2, 3
N_CLASSES = 4
STRUCTURES: dict[str, int] = {"RV": RV, "MYO": MYO, "LV": LV}
UNKNOWN = 255
"""A voxel that nobody annotated: it may be anything, background included."""
