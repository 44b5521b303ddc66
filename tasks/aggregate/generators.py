"""The rules ``feature_generator`` and ``data_free_distilled``: what agents' models know, without their data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..agent import Agent, Context
from ..architecture import Architecture
from ..knowledge import GENERATOR, Models
from ..late import late
from ..optimizers import Optimizer, Steps
from .door import Merge
from .means import mean_of_models
from .registry import AGGREGATES

if TYPE_CHECKING:
    import torch

    from ...kernels import losses
    from ..generator import FeatureGenerator, SampleGenerator
    from ..networks import Network
else:
    torch = late("torch")
    losses = late("codistill.kernels.losses")

Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]


class FeatureGeneration(Merge):
    """FedGen."""

    takes: ClassVar[tuple[str, ...]] = ("parameters",)
    equal_features: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("labels",)
    exclude_self: Literal[False] = Field(False, description="one generator is trained against all heads")
    steps: Count = Field(50, description="optimizer steps of the generator each round")
    batch: Annotated[int, Field(ge=2)] = Field(32, description="generated features a step")
    noise: Count = Field(32, description="numbers of noise that the generator draws on")
    hidden: Count = Field(256, description="units of the generator's hidden layer")
    ce_weight: Weight = Field(1.0, description="weight of the heads' cross entropy on generated features")
    diversity_weight: Weight = Field(1.0, description="weight of the loss that keeps features of different noise apart")
    classes: Literal["evenly", "by_count"] = Field(
        "evenly", description="classes are drawn evenly among those that anybody has, or as often as agents have them"
    )
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer.model_validate({"adam": {"lr": 0.0003, "weight_decay": 0.01}}),
        description="of the generator, made anew each round",
    )

    def brings(self, classes: int, features: int, contributors: int) -> tuple[int, int]:
        """Return the numbers and the tensors of the generator."""
        inner, outer = (self.noise + classes + 4) * self.hidden + 1, (self.hidden + 1) * features
        return inner + outer, 8


class DataFreeDistillation(Merge):
    """DENSE."""

    takes: ClassVar[tuple[str, ...]] = ("parameters",)
    exclude_self: Literal[False] = Field(False, description="all models are distilled together")
    epochs: Count = Field(20, description="turns of synthesis and distillation")
    generator_steps: Count = Field(30, description="optimizer steps of the generator in each epoch")
    batch: Annotated[int, Field(ge=2)] = Field(64, description="samples that are synthesised in each epoch")
    noise: Count = Field(64, description="numbers of noise that the generator draws on")
    width: Count = Field(
        16, description="channels of the generator before its output (four times as many units in a table's)"
    )
    ce_weight: Weight = Field(1.0, description="weight of the ensemble's cross entropy on what is synthesised")
    adversarial_weight: Weight = Field(1.0, description="weight of the divergence from students that decide otherwise")
    generator_optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer.model_validate({"adam": {"lr": 0.001}}), description="of the generator"
    )
    distil_batch: Count = Field(64, description="synthesised samples a step of distillation")
    temperature: Annotated[float, Field(gt=0)] = 1.0
    optimizer: Optimizer = Field(
        default_factory=lambda: Optimizer.model_validate({"sgd": {"lr": 0.01, "momentum": 0.9}}),
        description="of the students",
    )


@dataclass(frozen=True)
class Heads:
    """Heads of K models of one feature width F side by side, with how much each counts for each class.

    ``weight`` float32 [K * C, F], ``bias`` float32 [K * C], ``shares`` float32 [C, K]: rows sum to one, or
    to zero where nobody has the class. ``counts`` float64 [C]: samples of each class behind all of them.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    shares: torch.Tensor
    counts: torch.Tensor


def feature_widths(architectures: Iterable[Architecture]) -> tuple[int, ...]:
    """Return the different widths of the features of ``architectures``, rising. ``feature_generator`` needs one."""
    return tuple(sorted({one.features for one in architectures}))


def heads_of(packets: Sequence[Models]) -> Heads:
    """Return the heads of all models in ``packets`` in their order, an architecture of a packet being one model.

    Raises ``ValueError`` where a packet does not tell its class counts, or widths of features differ.
    """
    weights, biases, counts = [], [], []
    for packet in packets:
        for identity, tensors in packet.tensors.items():
            if identity not in packet.labels:
                raise ValueError(
                    f"feature_generator: the parameters of {identity} came without class counts, which weigh its head; "
                    "write `extract: {knowledge: parameters, labels: true}`"
                )
            weights.append(tensors["head.weight"])
            biases.append(tensors["head.bias"])
            counts.append(packet.labels[identity].double())
    widths = sorted({weight.shape[1] for weight in weights})
    if len(widths) > 1:
        raise ValueError(
            f"feature_generator: models have features of {' and '.join(map(str, widths))} numbers, and one generator "
            "makes features of one width; give all models the same `hidden`"
        )
    table = torch.stack(counts, dim=1)
    total = table.sum(1)
    shares = table / total.clamp(min=1e-12)[:, None]
    return Heads(torch.cat(weights), torch.cat(biases), shares.float(), total)


def ensemble_cross_entropy(features: torch.Tensor, labels: torch.Tensor, heads: Heads) -> torch.Tensor:
    """Return the heads' cross entropies on ``features`` [B, F] of ``labels`` int64 [B], by their shares of the class.

    Sum over heads k of share_k(y) CE(h_k(z), y), mean over the batch (Zhu et al. 2021, their code; eq. 4 of the paper
    takes the cross entropy of the mean logits). A scalar.
    """
    classes, members = heads.shares.shape
    logits = torch.nn.functional.linear(features, heads.weight, heads.bias).view(-1, members, classes)
    at = labels[:, None, None].expand(-1, members, 1)
    entropies = logits.logsumexp(2) - logits.gather(2, at).squeeze(2)
    return (entropies * heads.shares[labels]).sum(1).mean()


def diversity(features: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return exp of minus the mean over all pairs of (squared distance of noise) x (distance of features).

    Features [B, F] by mean absolute difference, noise [B, E] by mean squared difference: low where features of
    different noise are apart (Mao et al. 2019, as Zhu et al. 2021 use it). A scalar.
    """
    between = torch.cdist(features, features, p=1.0) / features.shape[1]
    apart = (noise[:, None] - noise).square().mean(2)
    return torch.exp(-(apart * between).mean())


@AGGREGATES.register("feature_generator", FeatureGeneration)
def feature_generator(agent: Agent, packets: Sequence[Models], said: FeatureGeneration, context: Context) -> Models:
    """The mean of each architecture, and a generator of features that all agents' heads classify (Zhu et al. 2021)."""
    merged = mean_of_models(packets)
    if not context.final:
        return merged
    from .. import generator as generators

    heads, classes = heads_of(packets), context.world.classes
    width = heads.weight.shape[1]
    generator = agent.module(
        "feature_generator", context, lambda: generators.FeatureGenerator(classes, said.noise, said.hidden, width)
    )
    _learn_features(generator, heads, said, agent.stream(context, "generator"))  # type: ignore[arg-type]
    return _with_generator(merged, generator, heads.counts)


def _learn_features(
    generator: FeatureGenerator, heads: Heads, said: FeatureGeneration, stream: torch.Generator
) -> None:
    from ..generator import chances

    steps, chance = Steps(said.optimizer, generator.parameters()), chances(heads.counts, said.classes)
    generator.train()
    for _ in range(said.steps):
        labels = torch.multinomial(chance, said.batch, replacement=True, generator=stream)
        noise = torch.rand(said.batch, said.noise, generator=stream)
        features = generator(labels, noise)
        loss = ensemble_cross_entropy(features, labels, heads) * said.ce_weight
        steps.down(loss + diversity(features, noise) * said.diversity_weight)


def _with_generator(models: Models, generator: torch.nn.Module, counts: torch.Tensor | None = None) -> Models:
    state = {name: value.detach().clone() for name, value in generator.state_dict().items()}
    return Models(
        {**models.tensors, GENERATOR: state},
        {**models.samples_by, GENERATOR: models.samples},
        {**models.labels} if counts is None else {**models.labels, GENERATOR: counts},
    )


@AGGREGATES.register("data_free_distilled", DataFreeDistillation)
def data_free_distilled(
    agent: Agent, packets: Sequence[Models], said: DataFreeDistillation, context: Context
) -> Models:
    """Averages each architecture, then distils all models into it on synthesised samples (Zhang et al. 2022)."""
    merged = mean_of_models(packets)
    if not context.final:
        return merged
    from .. import generator as generators

    world = context.world
    teachers = [_network(one, tensors, context) for packet in packets for one, tensors in packet.tensors.items()]
    students = {one: _network(one, tensors, context) for one, tensors in _starts(agent, merged).items()}
    shape = world.architectures[next(iter(students))].input_shape
    generator = agent.module(
        "sample_generator", context, lambda: generators.SampleGenerator(shape, world.classes, said.noise, said.width)
    )
    _take_turns(generator, teachers, list(students.values()), said, agent, context)  # type: ignore[arg-type]
    fused = {
        one: {name: value.detach().clone() for name, value in student.state_dict().items()}
        for one, student in students.items()
    }
    samples = {one: merged.samples_by.get(one, merged.samples) for one in fused}
    return Models(fused, samples, merged.labels)  # the generator stays: nobody below has use for it


def _network(identity: str, tensors: Mapping[str, torch.Tensor], context: Context) -> Network:
    from ..networks import build

    model = build(context.world.architectures[identity], torch.Generator().manual_seed(0))
    model.load_state_dict(tensors)
    return model.eval().requires_grad_(False)


def _starts(agent: Agent, merged: Models) -> dict[str, dict[str, torch.Tensor]]:
    """Return where students start: from the mean of each architecture, and an aggregator's own from itself."""
    starts = {identity: dict(tensors) for identity, tensors in merged.tensors.items()}
    if "model" in agent.models:
        starts.setdefault(agent.architectures["model"].name, agent.models["model"].state_dict())
    return starts


def synthesis_loss(
    teacher: torch.Tensor, students: Sequence[torch.Tensor], labels: torch.Tensor, said: DataFreeDistillation
) -> torch.Tensor:
    """Return what the generator goes down: the ensemble should know the class, and students should not agree with it.

    ``teacher`` and each of ``students``: logits [B, C] of the same samples. Cross entropy to ``labels`` int64 [B], less
    the mean over students and samples of KL(teacher || student) where the two decide for different classes (Zhang et
    al. 2022, eq. 2, 4 and 5, without the term on batch normalisation). A scalar.
    """
    loss = torch.nn.functional.cross_entropy(teacher, labels) * said.ce_weight
    log_p, decided = torch.log_softmax(teacher, 1), teacher.argmax(1)
    for student in students:
        divergence = (log_p.exp() * (log_p - torch.log_softmax(student, 1))).sum(1)
        disagreed = (divergence * (student.argmax(1) != decided)).mean()
        loss = loss - disagreed * (said.adversarial_weight / len(students))
    return loss


def _take_turns(
    generator: SampleGenerator,
    teachers: Sequence[Network],
    students: Sequence[Network],
    said: DataFreeDistillation,
    agent: Agent,
    context: Context,
) -> None:
    """Synthesise a batch against the students as they are, then teach them all that was synthesised so far."""
    stream = agent.stream(context, "synthesis")
    shuffles = [agent.stream(context, "fusion", index) for index in range(len(students))]
    generator_steps = Steps(said.generator_optimizer, generator.parameters())
    student_steps = [Steps(said.optimizer, student.parameters()) for student in students]
    samples = torch.empty(0, *generator.shape)
    targets = torch.empty(0, generator.classes)
    generator.train()
    for _ in range(said.epochs):
        made, target = _synthesise(generator, teachers, students, said, generator_steps, stream)
        samples, targets = torch.cat((samples, made)), torch.cat((targets, target))
        for student, steps, shuffle in zip(students, student_steps, shuffles, strict=True):
            student.train().requires_grad_()
            for chosen in torch.randperm(len(samples), generator=shuffle).split(said.distil_batch):
                steps.down(losses.kl_divergence(student(samples[chosen]), targets[chosen], said.temperature))
            student.eval().requires_grad_(False)


def _synthesise(
    generator: SampleGenerator,
    teachers: Sequence[Network],
    students: Sequence[Network],
    said: DataFreeDistillation,
    steps: Steps,
    stream: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch of samples and what the ensemble says of them: its mean logits, as the last step found both."""
    labels = torch.randint(generator.classes, (said.batch,), generator=stream)
    noise = torch.randn(said.batch, generator.noise, generator=stream)
    for _ in range(said.generator_steps):
        made = generator(labels, noise)
        teacher = torch.stack([model(made) for model in teachers]).mean(0)
        steps.down(synthesis_loss(teacher, [student(made) for student in students], labels, said))
    return made.detach(), teacher.detach()
