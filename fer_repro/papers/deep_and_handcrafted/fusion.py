"""Fusion and local learning of "Local Learning with Deep and Handcrafted Features".

A face is four blocks of numbers: the last hidden layers of three networks, and the presence of visual words. Each is
scaled to length 1; the kernel of two faces is the sum of the blocks' products. For every face an SVM is trained on its
nearest training faces, as in the method of 2013 (both use `fer_repro.local_learning`).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.svm import LinearSVC

from fer_repro.data.protocol import Splits
from fer_repro.evaluation import cost
from fer_repro.evaluation.predict import NetworkClassifier
from fer_repro.local_learning import LocalClassifier, StagedFit, best, score, svm, visual_words
from fer_repro.local_learning.pyramid import WordPyramid
from fer_repro.papers.deep_and_handcrafted.kernels import Block, Pool, joined, stacked, unit_blocks, unit_rows
from fer_repro.training.weights import digest

WORDS = "words"


def described(network: NetworkClassifier, images: np.ndarray) -> np.ndarray:
    """The last hidden layer, which is the input of ``fc8``, for uint8 [N,48,48], plain: float32 [N,D]."""
    parts: list[torch.Tensor] = []
    with network.model.fc8.register_forward_pre_hook(lambda _, inputs: parts.append(inputs[0].float())):
        network.predict_proba(np.ascontiguousarray(images))
    return torch.cat(parts).cpu().numpy()


class Describer:
    """A face as four blocks of numbers, each of length 1: three networks' last hidden layers, and presence of words."""

    def __init__(self, networks: dict[str, NetworkClassifier], stages: StagedFit) -> None:
        self.networks, self.artifacts, self.pause = networks, stages.artifacts, stages.pause
        self.options = stages.run.recipe.options.kwargs()
        self.words = WordPyramid(self.options, stages.artifacts, stages.run.seed, stages.pause)
        self.digests = {name: digest(network.model) for name, network in networks.items()}

    def blocks(self, images: np.ndarray, name: str | None = None) -> dict[str, Block]:
        """uint8 [N,48,48] -> {block: float16 [N,D], sparse for the words}; ``name``: in the cache (None: no cache)."""

        def describe(block: str) -> np.ndarray:
            return unit_rows(described(self.networks[block], images)).astype(np.float16)

        blocks: dict[str, Block] = {}
        for block, weights in self.digests.items():
            key, make = f"described-{name}-{block}", partial(describe, block)
            blocks[block] = self.artifacts.get_or_compute(key, {"weights": weights}, make) if name else make()
            self.pause()
        blocks[WORDS] = visual_words.weighted_sum(self.words.vectors(images, name), self.options["weights"])
        return blocks


class Fused(LocalClassifier):
    """The fitted method. ``machines``: for each group of blocks one linear SVM for all faces, as a baseline."""

    def __init__(
        self, describer: Describer, pool: Pool, chosen: dict[str, Any], machines: dict[tuple[str, ...], LinearSVC]
    ) -> None:
        super().__init__(chosen)
        self.describer, self.pool, self.machines = describer, pool, machines

    def compute(self, images: np.ndarray) -> np.ndarray:
        return self.local(self.describer.blocks(images), tuple(self.chosen["blocks"]))

    def local(self, blocks: dict[str, Block], names: tuple[str, ...]) -> np.ndarray:
        """Decision values float32 [N,7] of the local machines on the blocks ``names``, with the chosen k and C."""
        k, c = self.chosen["k"], self.chosen["C"]
        similarity = self.pool.similarity(blocks, names)
        return svm.local_decisions(similarity, self.pool.gram(names), self.pool.labels, k, (c,))[c]

    def extra_scores(self, splits: Splits) -> dict[str, Any]:
        """Every block alone and the groups together, by every machine, on both test sets."""
        rows: dict[tuple[tuple[str, ...], str], dict[str, Any]] = {}
        for usage, part in splits.held_out().items():
            images = np.asarray(part.images)
            blocks, networks = self.describer.blocks(images), self.describer.networks
            for names, machine in self.machines.items():
                answers = {"global": machine.predict(joined(unit_blocks(blocks), names))}
                if names[0] in networks and len(names) == 1:
                    answers["softmax"] = networks[names[0]].predict_proba(images).argmax(axis=1)
                chosen = names == tuple(self.chosen["blocks"])
                answers["local"] = (self.decisions(images) if chosen else self.local(blocks, names)).argmax(axis=1)
                for kind, classes in answers.items():
                    row = rows.setdefault((names, kind), {"blocks": list(names), "machine": kind})
                    row[usage] = score(classes, np.asarray(part.labels))
        return {"blocks": list(rows.values())}


def fuse(splits: Splits, stages: StagedFit, networks: dict[str, NetworkClassifier]) -> Fused:
    """Describe all faces, choose blocks, k and C on the select images, and keep what the local machines need.

    The vocabulary is made of the train images, and the networks saw no others.
    """
    run, options = stages.run, stages.run.recipe.options.kwargs()
    describer, every_block = Describer(networks, stages), (*networks, WORDS)
    images, labels = np.asarray(splits.train.images), np.asarray(splits.train.labels)
    describer.words.fit(images)
    stages.note("vocabulary")
    blocks = describer.blocks(images, "train")
    if options["pool"] == "mirrored":
        blocks = stacked(blocks, describer.blocks(images[:, :, ::-1], "train-mirrored"))
        labels = np.concatenate([labels, labels])
    query = describer.blocks(np.asarray(splits.select.images), "select")
    pool = Pool(blocks, labels, stages.pause)
    stages.note("descriptions")
    for name, network in networks.items():
        stages.note(f"{name}, softmax", network.predict_proba(np.asarray(splits.select.images)).argmax(axis=1))

    similar = {name: pool.one_similarity(name, query[name]) for name in every_block}
    settings = describer.words.settings | {"channels": options["channels"], "weights": options["weights"]}
    settings |= {"networks": describer.digests, "pool": options["pool"]}

    def machines(names: tuple[str, ...], ks: tuple[int, ...], costs: tuple[float, ...]) -> Any:
        summed = sum(similar[name] for name in names)
        return stages.machines(summed, pool.gram(names), labels, ks, costs, settings | {"blocks": names})

    tried = {}
    for names in options["blocks"]:
        (decisions,), (tried[names],) = (part.values() for part in machines(names, *options["start"]))
        stages.note(f"{' + '.join(names)}, local", decisions.argmax(axis=1))
    names = best(tried)
    decisions, grid = machines(names, options["k"], options["C"])
    k, c = best(grid)
    stages.note("chosen", decisions[k, c].argmax(axis=1))
    temperature = svm.fit_temperature(decisions[k, c], stages.labels)
    chosen = {"blocks": list(names), "k": k, "C": c, "temperature": temperature}
    units, linear = unit_blocks(query), {}
    for group in dict.fromkeys([*((name,) for name in every_block), every_block, names]):
        rows, asked = joined(pool.blocks, group), joined(units, group)
        linear[group] = stages.linear(f"{' + '.join(group)}, global", rows, labels, asked, options["global_C"])
    models = {network.model: network.recipe.input_size for network in networks.values()}
    run.facts |= {
        "status": "done",
        "selected_epoch": None,
        "chosen": chosen,
        "pool": len(labels),
        "blocks_tried": [{"blocks": list(n), "select_accuracy": accuracy} for n, accuracy in tried.items()],
        "grid": [{"k": k, "C": c, "select_accuracy": accuracy} for (k, c), accuracy in grid.items()],
        "dimensions": {name: int(block.shape[1]) for name, block in pool.blocks.items()},
        "seconds": stages.seconds(),
        "peak_memory_bytes": cost.peak_memory(torch.device(run.device)),
        "parameters": sum(cost.count_parameters(model) for model in models),
        "multiply_adds": sum(cost.count_multiply_adds(model, (1, 1, size, size)) for model, size in models.items()),
    }
    fused = Fused(describer, pool, chosen, linear)
    fused.remember(splits.select.images, decisions[k, c])
    return fused
