"""Clusters: connected components of the pairs found, in any memory, and the past is not rewritten."""

import numpy as np
import pytest

from ratoon.corpus.dedup import bands as room
from ratoon.corpus.dedup.bands import Forest, Pairs, Spill, pairs, partition


def clusters(folder, hashes, ranks, slots=None, agreement=0.0):
    """hashes: (documents, bands)"""
    spill = Spill(folder, hashes.size)
    for part in np.array_split(np.arange(len(hashes)), 3):
        spill.add(hashes[part].reshape(-1), np.repeat(part, hashes.shape[1]))
    forest = Forest(ranks)
    for part in spill.close():
        forest.join(pairs(*partition(part), ranks, slots, agreement))
    return forest.survivors()


def brute(hashes, ranks):
    """By the definition: components within a rank, each going whole to the least earlier neighbour's cluster."""
    documents = range(len(hashes))
    near = [{j for j in documents if set(hashes[i]) & set(hashes[j])} for i in documents]
    root = list(documents)
    for i in documents:
        for j in near[i]:
            if ranks[i] == ranks[j]:
                least, most = sorted((root[i], root[j]))
                root = [least if r == most else r for r in root]
    final = {}
    for r in sorted(set(root)):
        earlier = [root[j] for i in documents if root[i] == r for j in near[i] if ranks[j] < ranks[i]]
        final[r] = final[min(earlier)] if earlier else r
    return [final[r] for r in root]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("partition", [40, 1 << 22])
def test_clusters_are_connected_components_in_any_memory(tmp_path, monkeypatch, seed, partition):
    monkeypatch.setattr(room, "PARTITION", partition)
    draw = np.random.default_rng(seed)
    hashes = draw.integers(0, 2**64, 700, dtype=np.uint64)[draw.integers(0, 700, (150, 3))]
    ranks = np.sort(draw.integers(1, 4, 150)).astype(np.int32) if seed % 2 else np.ones(150, np.int32)
    assert clusters(tmp_path, hashes, ranks).tolist() == brute(hashes, ranks)


def test_a_chain_is_one_cluster_however_long(tmp_path):
    hashes = np.stack([np.arange(5000), np.arange(1, 5001)], axis=1).astype(np.uint64)
    order = np.random.default_rng(0).permutation(5000)
    assert (clusters(tmp_path, hashes[order], np.ones(5000, np.int32)) == 0).all()


def test_a_newcomer_like_two_earlier_texts_joins_the_first_and_leaves_them_apart():
    forest = Forest(np.array([1, 1, 2, 2], np.int32))
    forest.join(Pairs(np.array([0, 1, 2]), np.array([2, 2, 3])))
    assert forest.survivors().tolist() == [0, 1, 0, 0]


def test_a_pair_below_the_agreement_is_none_but_may_pair_with_others(tmp_path):
    slots = np.arange(4 * 112, dtype=np.int64).reshape(4, 112) % 251
    slots[2] = slots[1]
    slots[2, :11] += 1  # 101 of 112: 0.9014 after what chance agrees on is taken off
    slots = slots.astype(np.uint8)
    hashes = np.ones((4, 1), np.uint64)
    ranks = np.ones(4, np.int32)
    assert clusters(tmp_path / "0", hashes, ranks).tolist() == [0, 0, 0, 0]
    assert clusters(tmp_path / "1", hashes, ranks, slots, 0.901).tolist() == [0, 1, 1, 3]
    assert clusters(tmp_path / "2", hashes, ranks, slots, 0.902).tolist() == [0, 1, 2, 3]
