"""Which long documents are taken together, so that every group of rows costs the same.

A row's attention costs the sum of its documents' squared lengths. Rows with a long document are
rare in a window, and eight neighbours in cost among them may differ by a tenth. So long documents
come in length_groups of GROUP, of about equal lengths, one for each row of a group; a length_group
is one item of the shuffled order, and every other document is an item alone.

In: the length of each unit. Out: the units, length_group by length_group. Costs 0.2 us a unit,
once for an index of lengths.
"""

import numpy as np

from . import order

GROUP = 8  # rows that cost the same: a micro-step takes whole groups
SHORT = 8  # documents of which so many fit into a row are short,
FILLER = 256  # and those of so many positions: without them rows could not be filled


def length_groups(lengths_n: np.ndarray, sequence_length: int) -> tuple[np.ndarray, int]:
    """(members uint32 (n,), k): members[: GROUP * k] are k length_groups, the rest are items alone.

    lengths_n: int (n,), each 1 .. sequence_length positions. Of one length it is chance, the same
    for every pass, which units stand together: neighbours in a shard need not be.
    """
    lengths_n = np.asarray(lengths_n).astype(np.uint64)
    chance_n = order.hashed(np.arange(len(lengths_n))) >> np.uint64(32)
    longest_first = np.argsort(lengths_n << np.uint64(32) | chance_n)[::-1]
    num_long = int((lengths_n > max(sequence_length // SHORT, FILLER)).sum())
    return longest_first.astype(np.uint32), num_long // GROUP
