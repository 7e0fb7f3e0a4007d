"""The training loop: steps, epochs, checkpoints."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steadygrad import randomness, turns
from steadygrad.attacks import PGD
from steadygrad.calling import unwrap
from steadygrad.classifier import Classifier, check_model, frozen
from steadygrad.data import Dataset
from steadygrad.data.ahead import Ahead, in_turn
from steadygrad.defenses import Defense, State
from steadygrad.derivatives import breaks_off
from steadygrad.errors import Failure, UsageError
from steadygrad.files import read_tensors
from steadygrad.progress import Advance, task
from steadygrad.randomness import seed_of
from steadygrad.stopping import Stop, Stopped
from steadygrad.threat import Threat
from steadygrad.training import checkpoints
from steadygrad.training.batches import augmented, on_device, pieces_of, steps_of
from steadygrad.training.need import tell_need
from steadygrad.training.processes import Processes
from steadygrad.training.settings import FitSettings
from steadygrad.training.tracking import tracker, write_history
from steadygrad.turns import TURN

Watch = Callable[[Classifier, int], None]
"""`watch(classifier, steps)` gets a copy of the model in evaluation mode, and how many steps it was trained."""

# Steps between looks at the loss, each of which waits for the device.
_POLL = 50


@dataclass(eq=False)
class Loop:
    """One run: the model, the optimizer and how far they are. Arguments as for `fit`; `key` names the configuration."""

    classifier: Classifier
    defense: Defense
    train: Dataset
    validation: Dataset | None
    settings: FitSettings
    processes: Processes
    teacher: Classifier | None
    seed: int
    folder: Path | None
    key: str
    watch: Watch | None
    stop: Stop = field(default_factory=Stop)
    tried: bool = False

    def __post_init__(self) -> None:
        settings, processes = self.settings, self.processes
        self.device = processes.device
        with TURN:  # the classifier may be frozen by another thread
            self.model = copy.deepcopy(self.classifier)
        self.model.to(self.device)
        if settings.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.model.zero_grad(set_to_none=True)
        # Layers with running statistics of the batches: such as batch normalization.
        statistics = [m for m in self.model.modules() if getattr(m, "running_mean", None) is not None]
        self.fixed = statistics if settings.freeze_norms else []
        ids = {id(p) for layer in self.fixed for p in layer.parameters()}
        self.weights = [p for p in self.model.parameters() if p.requires_grad and id(p) not in ids]
        if not self.weights and ids:
            raise UsageError("freeze_norms leaves no weight to train: batch normalization is all that can learn here")
        self.train = on_device(self.train, self.device)
        self.validation = on_device(self.validation, self.device) if self.validation is not None else None
        if not any(p.requires_grad for p in self.model.parameters()):
            raise UsageError(f"{self.model.name} has no weights that require a gradient: nothing can be trained")
        x, _ = self.train.batch(slice(0, 2))
        check_model(self.model, x.to(self.device), len(self.train.classes), self.model.name)
        if processes.main:
            largest = settings.batch_size // (processes.size * settings.accumulate)
            tell_need(self.model, self.defense, x.to(self.device), largest)
        self.ahead = Ahead(self.train)
        self.steps = len(steps_of(len(self.train), settings.batch_size, self.seed, 0))
        if len(self.train) // self.steps < processes.size:
            raise UsageError(f"batch_size={settings.batch_size} is too small for {processes.size} processes")
        processes.copy_first((*self.model.parameters(), *self.model.buffers()))
        self.optimizer = _optimizer(self.weights, settings, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.precision == "fp16")
        self.progress = checkpoints.Progress()
        if self.folder is not None:
            found = checkpoints.load(self.folder, self.key, self.model.module, self.optimizer, self.device)
            self.progress = found or self.progress
            if not processes.main:
                # A checkpoint holds the sums of all processes, with which the first one goes on.
                self.progress.sums = {name: torch.zeros_like(sums) for name, sums in self.progress.sums.items()}
            if self.progress.scaler:
                self.scaler.load_state_dict(self.progress.scaler)

    def run(self) -> None:
        """Train the epochs that are left."""
        done, epochs = self.done, self.settings.epochs
        if done and self.due:
            self.show()
        if self.progress.epoch == epochs:
            return
        board = self.folder if self.settings.tensorboard and self.processes.main else None
        with (
            tracker(board, self.progress.epoch) as track,
            task(f"train {self.classifier.name}", epochs * self.steps) as advance,
        ):
            advance(done)
            while self.progress.epoch < epochs:
                self.epoch(advance)
                track(self.progress.history[-1])
                advance(0, note=_note(self.progress.history[-1]))

    @property
    def done(self) -> int:
        """Steps that have been trained."""
        return self.progress.epoch * self.steps + self.progress.step

    @property
    def due(self) -> bool:
        """Whether the settings ask for a checkpoint at this step, which is the end of an epoch or one within it."""
        progress, settings = self.progress, self.settings
        if progress.step:
            return settings.checkpoint_steps is not None and progress.step % settings.checkpoint_steps == 0
        return progress.epoch == settings.epochs or progress.epoch % settings.checkpoint_every == 0

    def show(self) -> None:
        """Call the watch."""
        if self.watch is not None and self.processes.main:
            self.watch(copy.deepcopy(self.model).eval(), self.done)

    def epoch(self, advance: Advance) -> None:
        """Train the steps that are left of an epoch, validate and write the checkpoint."""
        progress = self.progress
        batches = steps_of(len(self.train), self.settings.batch_size, self.seed, progress.epoch)
        if progress.step == 0:
            self.remember()
        self.model.train()
        for layer in self.fixed:
            layer.eval()
        while progress.step < self.steps:
            with self.drawing(progress.step):
                self.step(*batches[progress.step : progress.step + 2])
            progress.step += 1
            advance()
            # The end of the epoch is a checkpoint of its own.
            save = (self.stop.number or self.due) and progress.step < self.steps
            if save or progress.step % _POLL == 0:
                self.check_finite()
            if save:
                self.save()
        self.check_finite()
        self.close_epoch()
        if self.stop.number or self.due:
            self.save()

    def drawing(self, *place: int | str) -> contextlib.AbstractContextManager[None]:
        """Within the block, what layers draw, as dropout does, follows from a place in the epoch."""
        seed = seed_of("dropout", self.processes.rank, self.seed, self.progress.epoch, *place)
        return turns.drawing([self.device] if self.device.type == "cuda" else [], seed)

    def remember(self) -> None:
        """Let the defenses look at the network and the data, as the first process sees them."""
        state = State(self.teacher, seed_of("memory", self.seed, self.progress.epoch))
        for defense in self.defense.members:
            with self.drawing("memory"):
                known = defense.remember(self.progress.epoch, self.model, self.train, state)
            found = {name: tensor.to(self.device) for name, tensor in known.items()}
            self.processes.copy_first(found.values())
            self.progress.memory |= found

    def step(self, batch: Tensor, following: Tensor | None = None) -> None:
        """One step of the optimizer on this process's share of a batch (positions in the data), and of the next one."""
        part = self.processes.share(len(batch))
        samples = batch[part].to(self.train.labels.device)
        later = () if following is None else following[self.processes.share(len(following))].tolist()
        x, y = self.ahead.batch(samples, later, self.device)
        for weight in self.weights:
            weight.grad = None
        for piece in pieces_of(part, self.settings.accumulate):
            here = slice(piece.start - part.start, piece.stop - part.start)
            self.add_gradient(x[here], y[here], samples[here], piece, len(batch))
        self.processes.sum_all([w.grad for w in self.weights if w.grad is not None])
        # At every step, so that a run can be continued from any step.
        self.processes.average_buffers(self.model)
        self.update()

    def add_gradient(self, x: Tensor, y: Tensor, samples: Tensor, part: slice, count: int) -> None:
        """Add what a part of a batch of `count` samples gives to the gradients of the weights, and to the sums."""
        progress, settings = self.progress, self.settings
        place = (self.seed, progress.epoch, progress.step)
        seed = seed_of("augment", *place)
        follow = functools.partial(augmented, kind=settings.augment, seed=seed, count=count, part=part)
        x = follow(x)
        state = State(self.teacher, seed_of("attack", *place), part.start, progress.memory, samples, follow)
        half = torch.float16 if settings.precision == "fp16" else torch.bfloat16
        with torch.autocast(self.device.type, half, enabled=settings.precision != "float32"):
            loss = self.defense.loss(self.model, x, y, state)
        if not self.tried:
            self.tried = True
            if breaks_off(loss.total):
                raise UsageError(
                    f"{self.model.name} has a layer that can be differentiated once only (once_differentiable), and "
                    f"{self.defense} needs its second derivative: replace the layer, or take a defense of first order, "
                    "such as adversarial"
                )
        # Parts with more samples count for more: the sum over them is the mean over the batch.
        total = loss.total * (len(x) / count) if len(x) < count else loss.total
        slopes = torch.autograd.grad(self.scaler.scale(total), self.weights, allow_unused=True)
        for weight, slope in zip(self.weights, slopes):
            if weight.grad is None:
                # In the layout of the weight, which double backward through convolutions does not keep: a fused
                # optimizer pairs the entries as they lie in memory.
                weight.grad = torch.zeros_like(weight) if slope is None else torch.empty_like(weight).copy_(slope)
            elif slope is not None:
                weight.grad.add_(slope)
        for name, value in {"loss": loss.total.detach(), **loss.parts}.items():
            progress.sums[name] = progress.sums.get(name, 0) + value * len(x)

    def update(self) -> None:
        """Move the weights along their gradients."""
        rate = self.settings.rate(self.done, self.settings.epochs * self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if self.settings.clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.weights, self.settings.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def check_finite(self) -> None:
        """Stop if the loss of the epoch so far, or a weight, is NaN or infinite."""
        loss = self.processes.sum(self.progress.sums["loss"].clone())
        finite = torch.stack([loss.isfinite(), *(w.isfinite().all() for w in self.weights)])
        if not bool(finite.all()):
            kept = f"; the last checkpoint stays in {self.folder}" if self.folder is not None else ""
            raise Failure(
                f"the loss is no longer finite in epoch {self.progress.epoch + 1}, step {self.progress.step}: "
                f"lower lr={self.settings.lr:g}, or set clip{kept}"
            )

    def close_epoch(self) -> None:
        """Write the row of the epoch and keep the weights if they are the best so far."""
        progress, settings = self.progress, self.settings
        # Sorted, since a checkpoint within the first epoch does not keep their order.
        names = sorted(progress.sums, key=lambda name: (name != "loss", name))
        sums = self.processes.sum(torch.stack([progress.sums[name] for name in names]))
        progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
        row: dict[str, Any] = {
            "epoch": progress.epoch,
            "lr": settings.rate(self.done - 1, settings.epochs * self.steps),
            **dict(zip(names, (sums / len(self.train)).tolist())),
            **self.scores(),
        }
        progress.history.append(row)
        if settings.select != "last" and row[f"validation_{settings.select}"] > progress.best_score:
            progress.best_epoch, progress.best_score = progress.epoch, row[f"validation_{settings.select}"]
            progress.best = {k: v.detach().clone() for k, v in self.model.module.state_dict().items()}

    def scores(self) -> dict[str, float]:
        """Accuracy on the validation data, clean and, where an eps is set, under PGD."""
        data, settings = self.validation, self.settings
        if data is None:
            return {}
        hits = torch.zeros(2, dtype=torch.int64, device=self.device)
        starts = range(0, len(data), settings.batch_size)
        mine = [range(len(data))[s : s + settings.batch_size] for s in starts]
        mine = [part[self.processes.share(len(part))] for part in mine]
        for start, part, (x, y) in zip(starts, mine, in_turn(data, mine, self.device)):
            if not part:
                continue
            with self.drawing("validation", start), frozen(self.model), torch.no_grad():
                hits[0] += (self.model(x).argmax(1) == y).sum()
            if settings.robust_eps is not None:
                hits[1] += self.robust_hits(x, y, part.start)
        shares = [count / len(data) for count in self.processes.sum(hits).tolist()]
        names = ("validation_accuracy", "validation_robust")[: 2 if settings.robust_eps is not None else 1]
        return dict(zip(names, shares))

    def robust_hits(self, x: Tensor, y: Tensor, offset: int) -> Tensor:
        """How many samples x (n, *), which come after `offset` others, PGD does not fool."""
        settings, generator = self.settings, randomness.fresh(seed_of("validation", self.seed))
        randomness.sample_seeds(offset, generator)
        threat = Threat(settings.robust_norm, settings.robust_eps, self.model.bounds)
        return (~PGD(steps=settings.robust_steps)(self.model, x, y, threat, generator=generator).success).sum()

    def save(self) -> None:
        """Write the checkpoint and call the watch; after a Ctrl-C, stop here."""
        if self.folder is not None:
            self.progress.scaler = self.scaler.state_dict()
            names = sorted(self.progress.sums)
            sums = {name: self.processes.sum(self.progress.sums[name].clone()) for name in names}
            if self.processes.main:
                whole = dataclasses.replace(self.progress, sums=sums)
                checkpoints.save(self.folder, self.key, self.model.module, self.optimizer, whole)
                write_history(self.folder, self.progress.history)
            self.processes.wait()
        if self.stop.number:
            raise Stopped
        self.show()

    def result(self) -> Classifier:
        """The chosen weights in a classifier in evaluation mode; also written to the folder."""
        if self.progress.best is not None:
            self.model.module.load_state_dict(self.progress.best)
        self.model.zero_grad(set_to_none=True)
        self.model.eval()
        if self.settings.channels_last:
            self.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        if self.folder is not None and self.processes.main:
            write_history(self.folder, self.progress.history)
            if not self.saved(self.folder / "model.safetensors"):
                self.model.save(self.folder / "model.safetensors")
        self.processes.wait()
        return self.model

    def saved(self, path: Path) -> bool:
        """Whether a file holds the trained weights."""
        if not path.exists():
            return False
        try:
            found, settings = read_tensors(path)
        except Failure:  # it is told where the file is written again
            return False
        weights = unwrap(self.model.module).state_dict()
        same = found.keys() == weights.keys() and all(torch.equal(found[k], v.cpu()) for k, v in weights.items())
        return same and settings == self.model.settings


def _optimizer(weights: list[nn.Parameter], settings: FitSettings, device: torch.device) -> torch.optim.Optimizer:
    # One kernel for the whole update, but where the gradient scaler of float16 has to look at each part of it.
    options: dict[str, Any] = {
        "lr": settings.lr,
        "weight_decay": settings.weight_decay,
        "fused": settings.precision != "fp16" and device.type in ("cpu", "cuda"),
    }
    if settings.optimizer == "adam":
        return torch.optim.Adam(weights, eps=settings.adam_eps, **options)
    return torch.optim.SGD(weights, momentum=settings.momentum, **options)


def _note(row: Mapping[str, Any]) -> str:
    parts = [f"loss {row['loss']:.3g}"]
    for name, word in (("validation_accuracy", "val"), ("validation_robust", "robust")):
        parts += [f"{word} {row[name]:.1%}"] if name in row else []
    return " ".join(parts)
