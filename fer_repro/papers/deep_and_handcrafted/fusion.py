"""Fusion and local learning of "Local Learning with Deep and Handcrafted Features".

A face is four blocks of numbers: the last hidden layers of three networks, and the presence of visual words. Each is
scaled to length 1; the kernel of two faces is the sum of the blocks' products. For every face an SVM is trained on its
nearest training faces, as in the method of 2013 (``local_svm``, ``visual_words`` and ``word_pyramid`` are the same).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.svm import LinearSVC

from fer_repro.data.protocol import Splits
from fer_repro.evaluation import cost
from fer_repro.evaluation.predict import PIXELS_PER_PASS, NetworkClassifier
from fer_repro.evaluation.tta import view_batch
from fer_repro.layers import as_input, normalise_
from fer_repro.local_learning import LocalClassifier, Workshop, best, score, svm, visual_words
from fer_repro.local_learning.pyramid import WordPyramid
from fer_repro.papers.deep_and_handcrafted.kernels import Block, Blocks, Pool, joined, stacked, unit_rows
from fer_repro.training.weights import digest

WORDS = "words"


@torch.inference_mode()
def described(network: NetworkClassifier, images: np.ndarray) -> np.ndarray:
    """The last hidden layer (``model.describe``) for uint8 [N,48,48], in the plain view: float32 [N,D]."""
    recipe, device = network.recipe, network.device
    batch = max(1, PIXELS_PER_PASS.get(device.type, 200_000) // recipe.input_size**2)
    was_training = network.model.training
    network.model.eval()
    parts = []
    for part in torch.tensor(np.ascontiguousarray(images), device=device).split(batch):
        whole = normalise_(as_input(part), recipe.mean, recipe.std)
        inputs = view_batch(whole, recipe.plain, recipe.input_size).contiguous(memory_format=network.memory_format)
        parts.append(network.model.describe(inputs).float())
    network.model.train(was_training)
    return torch.cat(parts).cpu().numpy()


class Describer:
    """A face as four blocks of numbers, each of length 1: three networks' last hidden layers, and presence of words."""

    def __init__(self, networks: dict[str, NetworkClassifier], work: Workshop) -> None:
        self.networks, self.artifacts, self.pause = networks, work.artifacts, work.pause
        self.options = work.run.recipe.options.kwargs()
        self.words = WordPyramid(self.options, work.artifacts, work.run.seed, work.pause)
        self.digests = {name: digest(network.model) for name, network in networks.items()}

    def blocks(self, images: np.ndarray, name: str | None = None) -> dict[str, Block]:
        """uint8 [N,48,48] -> {block: float16 [N,D], or sparse for the words}; ``name``: keep them on disk under it."""
        found: dict[str, Block] = {}
        for block, network in self.networks.items():

            def ask(network: NetworkClassifier = network) -> np.ndarray:
                return unit_rows(described(network, images)).astype(np.float16)

            settings = {"weights": self.digests[block]}
            found[block] = self.artifacts.get_or_compute(f"described-{name}-{block}", settings, ask) if name else ask()
            self.pause()
        found[WORDS] = visual_words.weighted_sum(self.words.vectors(images, name), self.options["weights"])
        return found


class Fused(LocalClassifier):
    """The fitted method. ``machines``: for each group of blocks one linear SVM for all faces, as a baseline."""

    def __init__(
        self, describer: Describer, pool: Pool, chosen: dict[str, Any], machines: dict[tuple[str, ...], LinearSVC]
    ) -> None:
        super().__init__(chosen["temperature"])
        self.describer, self.pool, self.chosen, self.machines = describer, pool, chosen, machines

    def work_out(self, images: np.ndarray) -> np.ndarray:
        return self.local(self.describer.blocks(images), tuple(self.chosen["blocks"]))

    def local(self, blocks: dict[str, Block], names: tuple[str, ...]) -> np.ndarray:
        """Decision values float32 [N,7] of the local machines on the blocks ``names``, with the chosen k and C."""
        k, c = self.chosen["k"], self.chosen["C"]
        similarity = self.pool.similarity(blocks, names)
        return svm.local_decisions(similarity, self.pool.gram(names), self.pool.labels, k, (c,))[c]

    def extra_scores(self, splits: Splits) -> dict[str, Any]:
        """Every block alone and the groups together, by every machine, on both held-out halves."""
        rows: dict[tuple[tuple[str, ...], str], dict[str, Any]] = {}
        for part in (splits.select, splits.test):
            half, images, labels = "+".join(sorted(set(part.usage))), np.asarray(part.images), np.asarray(part.labels)
            blocks = self.describer.blocks(images)
            for names, machine in self.machines.items():
                answers = {"global": machine.predict(joined(_unit(blocks), names))}
                if names[0] in self.describer.networks and len(names) == 1:
                    answers["softmax"] = self.describer.networks[names[0]].predict_proba(images).argmax(axis=1)
                chosen = names == tuple(self.chosen["blocks"])
                answers["local"] = (self.decisions(images) if chosen else self.local(blocks, names)).argmax(axis=1)
                for kind, told in answers.items():
                    row = rows.setdefault((names, kind), {"blocks": list(names), "machine": kind})
                    row[half] = score(told, labels)
        return {"blocks": list(rows.values())}


def _unit(blocks: Blocks) -> dict[str, Block]:
    return {name: unit_rows(block) for name, block in blocks.items()}


def fuse(splits: Splits, work: Workshop, networks: dict[str, NetworkClassifier]) -> Fused:
    """Describe all faces, choose blocks, k and C on the select images, and keep what the local machines need.

    The vocabulary is made of the train images, and the networks saw no others.
    """
    run, options = work.run, work.run.recipe.options.kwargs()
    describer, everything = Describer(networks, work), (*networks, WORDS)
    images, labels = np.asarray(splits.train.images), np.asarray(splits.train.labels)
    describer.words.fit(images)
    work.note("vocabulary")
    blocks = describer.blocks(images, "train")
    if options["pool"] == "mirrored":
        blocks = stacked(blocks, describer.blocks(images[:, :, ::-1], "train-mirrored"))
        labels = np.concatenate([labels, labels])
    asked = describer.blocks(np.asarray(splits.select.images), "select")
    pool = Pool(blocks, labels, work.pause)
    work.note("descriptions")
    for name, network in describer.networks.items():
        work.note(f"{name}, softmax", network.predict_proba(np.asarray(splits.select.images)).argmax(axis=1))

    similar = {name: pool.one_similarity(name, asked[name]) for name in everything}
    settings = describer.words.settings | {"channels": options["channels"], "weights": options["weights"]}
    settings |= {"networks": describer.digests, "pool": options["pool"]}

    def machines(names: tuple[str, ...], ks: tuple[int, ...], costs: tuple[float, ...]) -> Any:
        summed = sum(similar[name] for name in names)
        told = settings | {"blocks": names}
        return work.machines(summed, pool.gram(names), labels, ks, costs, told)

    tried = {}
    for names in options["blocks"]:
        (decisions, (accuracy,)) = (part.values() for part in machines(names, *options["start"]))
        tried[names] = accuracy
        work.note(f"{' + '.join(names)}, local", next(iter(decisions)).argmax(axis=1))
    names = best(tried)
    decisions, grid = machines(names, options["k"], options["C"])
    k, c = best(grid)
    work.note("chosen", decisions[k, c].argmax(axis=1))
    temperature = svm.fit_temperature(decisions[k, c], work.labels)
    chosen = {"blocks": list(names), "k": k, "C": c, "temperature": temperature}
    groups = dict.fromkeys([*((name,) for name in everything), everything, names])
    linear = {group: _global(pool, group, asked, options["global_C"], work) for group in groups}
    models = [network.model for network in describer.networks.values()]
    sizes = [network.recipe.input_size for network in describer.networks.values()]
    run.facts |= {
        "status": "done",
        "selected_epoch": None,
        "chosen": chosen,
        "pool": len(labels),
        "blocks_tried": [{"blocks": list(n), "select_accuracy": accuracy} for n, accuracy in tried.items()],
        "grid": [{"k": k, "C": c, "select_accuracy": accuracy} for (k, c), accuracy in grid.items()],
        "dimensions": {name: int(block.shape[1]) for name, block in pool.blocks.items()},
        "seconds": work.seconds(),
        "peak_memory_bytes": cost.peak_memory(torch.device(run.device)),
        "parameters": sum(cost.count_parameters(model) for model in models),
        "multiply_adds": sum(
            cost.count_multiply_adds(model, (1, 1, size, size)) for model, size in zip(models, sizes, strict=True)
        ),
    }
    fused = Fused(describer, pool, chosen, linear)
    fused.remember(splits.select.images, decisions[k, c])
    return fused


def _global(
    pool: Pool, names: tuple[str, ...], asked: dict[str, Block], costs: tuple[float, ...], work: Workshop
) -> LinearSVC:
    """One linear SVM for all faces on the blocks ``names``, its C chosen on the select images."""
    rows, query, found = joined(pool.blocks, names), joined(_unit(asked), names), {}
    for c in costs:
        machine = LinearSVC(C=c, tol=1e-3, random_state=work.run.seed).fit(rows, pool.labels)
        found[machine] = work.accuracy(machine.predict(query))
        work.pause()
    work.note(f"{' + '.join(names)}, global", best(found).predict(query))
    return best(found)
