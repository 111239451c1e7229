"""Datasets that a scenario can name."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.random import Generator
from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fl_testbed.data import Dataset, long_tailed, sources
from fl_testbed.data.sources.composite import (
    Backgrounds,
    Colour,
    Texture,
    coloured,
    photographed,
    textured,
)
from fl_testbed.scenario.minorities import (
    AnyMinoritySpec,
    AttributesSpec,
    InvertedSpec,
    NoMinoritySpec,
)
from fl_testbed.scenario.own_specs import OwnSpec, flaw_of_inputs, flaw_of_tensors
from fl_testbed.scenario.spec import BY_KIND, Fraction, FunctionSpec, Spec


class LongTailSpec(Spec):
    """Classes thinned out so that their sizes fall geometrically from the first to the last."""

    ratio: Annotated[float, Field(ge=1)]  # the first class's size over the last's
    test: bool = True  # whether the test set is thinned out too


class DatasetSpec(FunctionSpec):
    """What all datasets have in common."""

    n_classes: ClassVar[int | None] = None
    """How many classes there are, where that is known before the data are read."""
    split_by_seed: ClassVar[bool] = False
    """Whether the seed decides which examples there are, or which ones are for testing."""
    minority: AnyMinoritySpec = InvertedSpec()
    long_tail: LongTailSpec | None = None  # none: all examples of each class

    def read(self, data_dir: Path | None, rng: Generator) -> Dataset:
        """Read the files.

        Args:
            data_dir: The folder of datasets.
            rng: Draws the training and test split, where the publisher made none.

        Raises:
            DataError: If the files are missing or broken.
        """
        drawn = (rng,) if self.split_by_seed else ()
        return self.bind()(data_dir, *drawn)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the reading function: all keys but those that datasets share."""
        return self.model_dump(exclude={"kind", *DatasetSpec.model_fields})

    def load(self, data_dir: Path | None, rng: Generator) -> Dataset:
        """Read the files, and thin out classes if the scenario says so."""
        dataset = self.read(data_dir, rng)
        if self.long_tail is None:
            return dataset
        return long_tailed(dataset, self.long_tail.ratio, test=self.long_tail.test)

    def identity(self, seed: int) -> tuple[Any, ...]:
        """Return what determines the examples: equal identities load equal datasets."""
        fields = self.model_dump_json(exclude={"minority"})
        return (fields, seed if self.split_by_seed else None)


class DigitsSpec(DatasetSpec):
    """scikit-learn's bundled digits, 8 × 8; needs no files."""

    kind: Literal["digits"]
    n_classes = 10
    split_by_seed = True

    def read(self, data_dir: Path | None, rng: Generator) -> Dataset:
        """Return the digits."""
        return sources.load_digits(rng)


class MnistSpec(DatasetSpec):
    """MNIST, 28 × 28 digits."""

    kind: Literal["mnist"]
    n_classes = 10
    function = staticmethod(sources.load_mnist)


class FashionMnistSpec(DatasetSpec):
    """Fashion-MNIST, 28 × 28 clothing, from the data folder."""

    kind: Literal["fashion_mnist"]
    n_classes = 10
    function = staticmethod(sources.load_fashion_mnist)


class MnistWritersSpec(DatasetSpec):
    """MNIST by writer, from QMNIST's label table; attribute population; clients are writers."""

    kind: Literal["mnist_writers"]
    n_classes = 10
    split_by_seed = True
    minority: AnyMinoritySpec = AttributesSpec(by=["population"], groups=["students"])
    part: Literal["t10k", "train"] = "t10k"  # which of MNIST's files
    population: Literal["both", "employees", "students"] = "both"  # whose digits
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2  # tested share of each population
    function = staticmethod(sources.load_mnist_writers)


class Cifar10Spec(DatasetSpec):
    """CIFAR-10, 32 × 32 in colour, from its binary version."""

    kind: Literal["cifar10"]
    n_classes = 10
    function = staticmethod(sources.load_cifar10)


class CelebASpec(DatasetSpec):
    """CelebA: faces with 40 attributes; clients are celebrities."""

    kind: Literal["celeba"]
    n_classes = 2
    minority: AnyMinoritySpec = AttributesSpec(by=["label", "Male"])
    target: str = "Blond_Hair"  # the attribute that is the label
    size: PositiveInt = 32  # pixels of a side
    limit: PositiveInt | None = None  # use only the first images, this many of each set
    function = staticmethod(sources.load_celeba)


class FairFaceSpec(DatasetSpec):
    """FairFace: faces with perceived gender, age and race, scaled to small images."""

    kind: Literal["fairface"]
    minority: AnyMinoritySpec = AttributesSpec(by=["race"], groups=["Black"])
    target: Literal["gender", "age", "race"] = "gender"  # the column that is the label
    size: PositiveInt = 32  # pixels of a side
    limit: PositiveInt | None = None  # use only the first images, this many of each set
    function = staticmethod(sources.load_fairface)


class AdultSpec(DatasetSpec):
    """Adult: income above 50,000 dollars; attributes sex and race."""

    kind: Literal["adult"]
    n_classes = 2
    minority: AnyMinoritySpec = AttributesSpec(by=["sex", "label"])
    function = staticmethod(sources.load_adult)


class CompasSpec(DatasetSpec):
    """COMPAS: arrested again within two years; attributes sex and race."""

    kind: Literal["compas"]
    n_classes = 2
    split_by_seed = True
    minority: AnyMinoritySpec = AttributesSpec(by=["sex", "label"])
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2  # tested share of the people
    function = staticmethod(sources.load_compas)


class WaterbirdsSpec(DatasetSpec):
    """Waterbirds in the layout of WILDS; attribute place, the background."""

    kind: Literal["waterbirds"]
    n_classes = 2
    minority: AnyMinoritySpec = AttributesSpec(by=["label", "place"])
    size: PositiveInt = 32  # pixels of a side
    function = staticmethod(sources.load_waterbirds)


class FemnistSpec(DatasetSpec):
    """FEMNIST: characters by writer, in LEAF's JSON; clients are writers."""

    kind: Literal["femnist"]
    n_classes = 62
    function = staticmethod(sources.load_femnist)


class TableSpec(DatasetSpec):
    """What datasets have in common whose examples are described by the user's own table."""

    label: str = "label"  # the column of labels
    attributes: list[str] = Field(default_factory=list)  # columns that groups can be made of
    client: str | None = None  # the column that names natural clients
    split: str | None = None  # the column that says train or test
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2  # tested share, if there is no split

    @property
    def split_by_seed(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the seed draws the test set, because the table does not say."""
        return self.split is None

    @field_validator("attributes")
    @classmethod
    def _each_once(cls, attributes: list[str], info: ValidationInfo) -> list[str]:
        if len(set(attributes)) < len(attributes):
            raise ValueError("needs each column only once")
        if {"label", info.data.get("label")} & set(attributes):
            raise ValueError("must not have the label's column: minority.by can name it as label")
        return attributes

    def read(self, data_dir: Path | None, rng: Generator) -> Dataset:
        """Read the table, and what it describes."""
        return self.bind()(data_dir, rng)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the reading function, with the columns' meanings in one."""
        given = super().arguments()
        meanings = {key: given.pop(key) for key in TableSpec.model_fields if key in given}
        return given | {"meanings": sources.Meanings(**meanings)}


class ImageFolderSpec(TableSpec):
    """Your own folder of images, with a CSV of label, attributes and client."""

    kind: Literal["image_folder"]
    folder: str  # in the data folder
    table: str = "labels.csv"  # a CSV file in the folder
    image: str = "image"  # the table's column of file names
    size: PositiveInt | None = None  # none: all images have the same size
    channels: Literal[1, 3] = 3  # grey or colour
    function = staticmethod(sources.load_image_folder)


class CsvSpec(TableSpec):
    """Your own table: a CSV file of inputs, label, attributes and client."""

    kind: Literal["csv"]
    minority: AnyMinoritySpec = NoMinoritySpec(kind="none")
    file: str  # in the data folder, with a header; all but label, client and split are inputs
    leave_out: list[str] = Field(default_factory=list)  # columns not to use as inputs
    categories: list[str] = Field(default_factory=list)  # columns whose numbers are categories
    logarithmic: list[str] = Field(default_factory=list)  # columns whose log(1 + x) is the input

    @field_validator("logarithmic")
    @classmethod
    def _no_category(cls, logarithmic: list[str], info: ValidationInfo) -> list[str]:
        if set(logarithmic) & set(info.data.get("categories", [])):
            raise ValueError("must not have columns that are also in categories")
        return logarithmic

    function = staticmethod(sources.load_csv)


SimpleDatasetSpec = Annotated[
    DigitsSpec
    | MnistSpec
    | FashionMnistSpec
    | MnistWritersSpec
    | Cifar10Spec
    | CelebASpec
    | FairFaceSpec
    | FemnistSpec
    | ImageFolderSpec,
    BY_KIND,
]
"""Datasets of images, of which a composite can be made."""


class ColoursSpec(Spec):
    """Plain colours."""

    kind: Literal["colours"]
    colours: Annotated[list[Colour], Field(min_length=1)]

    def build(self, data_dir: Path | None, rng: Generator, size: tuple[int, int]) -> Backgrounds:
        """Return the backgrounds for images of some size."""
        return coloured(self.colours, size)


class TexturesSpec(Spec):
    """Grey stripes and checks."""

    kind: Literal["textures"]
    textures: Annotated[list[Texture], Field(min_length=1)]
    brightness: Fraction = 0.5

    def build(self, data_dir: Path | None, rng: Generator, size: tuple[int, int]) -> Backgrounds:
        """Return the backgrounds for images of some size."""
        return textured(self.textures, size, self.brightness)


class ImagesSpec(Spec):
    """Images of another dataset, a class for each background."""

    kind: Literal["images"]
    dataset: SimpleDatasetSpec
    classes: Annotated[list[NonNegativeInt], Field(min_length=1)]

    def build(self, data_dir: Path | None, rng: Generator, size: tuple[int, int]) -> Backgrounds:
        """Return the backgrounds; the composite checks their size."""
        return photographed(self.dataset.load(data_dir, rng), self.classes)


class CompositeSpec(DatasetSpec):
    """Images on backgrounds that correlate with their class; attribute background."""

    kind: Literal["composite"]
    split_by_seed = True
    minority: AnyMinoritySpec = AttributesSpec(by=["label", "background"])
    foreground: SimpleDatasetSpec  # a dataset of images
    background: Annotated[
        ColoursSpec | TexturesSpec | ImagesSpec,
        BY_KIND,
        Field(description="what images stand on"),
    ]
    classes: Annotated[list[NonNegativeInt], Field(min_length=1)] | None = None  # all by default
    correlation: Fraction = 0.95  # share of a class on the background that goes with it
    counts: list[list[NonNegativeInt]] | None = None  # or training images, classes × backgrounds
    layout: Literal["behind", "beside"] = "behind"  # where the background is

    @model_validator(mode="after")
    def _groups_are_the_composite_s(self) -> Self:
        inner = [self.foreground]
        if isinstance(self.background, ImagesSpec):
            inner.append(self.background.dataset)
        # A resolved scenario states defaults as well.
        if any(spec.minority != type(spec).model_fields["minority"].default for spec in inner):
            raise ValueError("minority belongs to the composite: move it out of the dataset inside")
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise ValueError("classes needs each class only once")
        return self

    def read(self, data_dir: Path | None, rng: Generator) -> Dataset:
        """Read the images and put them on their backgrounds."""
        foreground = self.foreground.load(data_dir, rng)
        height, width = foreground.input_shape[1:]
        backgrounds = self.background.build(data_dir, rng, (height, width))
        how = self.model_dump(include={"classes", "correlation", "counts", "layout"})
        return sources.load_composite(foreground, backgrounds, rng, **how)


Pair = Annotated[list[NonNegativeInt], Field(min_length=2, max_length=2)]


class DominoesSpec(DatasetSpec):
    """Dominoes: a garment of Fashion-MNIST beside a digit that goes with its class; attribute
    digit."""

    kind: Literal["dominoes"]
    n_classes = 2
    split_by_seed = True
    minority: AnyMinoritySpec = AttributesSpec(by=["label", "digit"])
    garments: Pair = Field(default=[5, 7])  # the two classes
    digits: Pair = Field(default=[0, 1])  # the digit that goes with each garment
    counts: list[list[NonNegativeInt]] = Field(default=[[3498, 184], [56, 1057]])  # Waterbirds'
    correlation: Fraction | None = None  # in place of counts: share beside their own digit

    @model_validator(mode="after")
    def _two_different(self) -> Self:
        if self.garments[0] == self.garments[1] or self.digits[0] == self.digits[1]:
            raise ValueError("garments and digits each need two different classes")
        counts = type(self).model_fields["counts"].default  # a resolved scenario states them too
        if self.correlation is not None and self.counts != counts:
            raise ValueError("needs either counts or correlation, got both")
        return self

    def read(self, data_dir: Path | None, rng: Generator) -> Dataset:
        """Read both datasets, lay them side by side, 14 × 28; test digits are by other writers."""
        digits = sources.load_mnist_writers(data_dir, rng, test_fraction=0.5)
        return sources.load_composite(
            sources.load_fashion_mnist(data_dir),
            photographed(digits, self.digits),
            rng,
            self.garments,
            correlation=self.correlation or 0.0,
            counts=self.counts if self.correlation is None else None,
            layout="beside",
            attribute="digit",
        )


class OwnDatasetSpec(OwnSpec, DatasetSpec):
    """Your own dataset: file.py:name or package.module:name."""

    facts = frozenset({"data_dir", "rng"})

    @property
    def split_by_seed(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether it asks for random numbers."""
        return self.names("rng")

    def read(self, data_dir: Path | None, rng: Generator) -> Dataset:
        """Call the function."""
        return self.called(data_dir=data_dir, rng=rng)

    def flaw_of(self, result: Any, *args: Any, **named: Any) -> str:
        """Require a Dataset whose arrays have the types documented for it."""
        return flaw_of_tensors(result, Dataset, {}) or _flaw_of(result)


def _flaw_of(dataset: Dataset) -> str:
    """Return what is wrong with the arrays of a user's dataset, or nothing."""
    for part, examples in (("train", dataset.train), ("test", dataset.test)):
        unknown = sorted(set(examples.attributes) - set(dataset.attributes))
        if unknown:
            return f"must return attributes[{unknown[0]!r}], which says what its codes stand for"
        missing = sorted(set(dataset.attributes) - set(examples.attributes))
        if missing:
            return f"must return {part}.attributes[{missing[0]!r}], which its attributes name"
        n = len(examples.inputs)
        if found := _flaw_of_codes(examples.labels, n, dataset.n_classes, "int64", np.int64):
            return f"must return {part}.labels {found}"
        whole = "whole numbers"
        for name, codes in examples.attributes.items():
            n_values = len(dataset.attributes[name])
            if found := _flaw_of_codes(codes, n, n_values, whole, np.bool_, np.integer):
                return f"must return {part}.attributes[{name!r}] {found}"
        for name, numbers in (("clients", examples.clients), ("ids", examples.ids)):
            given = numbers is not None
            if given and (found := _flaw_of_codes(numbers, n, None, whole, np.integer)):
                return f"must return {part}.{name} {found}"
        shape, is_image = dataset.input_shape, dataset.holds_images
        if found := flaw_of_inputs(examples.inputs, shape, is_image=is_image):
            return f"must return {part}.inputs {found}"
    return ""


def _flaw_of_codes(codes: Any, n: int, n_values: int | None, needed: str, *kinds: type) -> str:
    needs = f"as an array of {needed} of shape ({n},), returned"
    if not isinstance(codes, np.ndarray):
        return f"{needs} {type(codes).__name__}"
    if not any(np.issubdtype(codes.dtype, kind) for kind in kinds) or codes.shape != (n,):
        return f"{needs} {codes.dtype} of shape {codes.shape}"
    if n_values is not None and n and not 0 <= codes.min() <= codes.max() < n_values:
        return f"from 0 to {n_values - 1}, returned {codes.min()} to {codes.max()}"
    return ""


AnyDatasetSpec = Annotated[
    DigitsSpec
    | MnistSpec
    | FashionMnistSpec
    | MnistWritersSpec
    | Cifar10Spec
    | CelebASpec
    | FairFaceSpec
    | AdultSpec
    | CompasSpec
    | WaterbirdsSpec
    | FemnistSpec
    | ImageFolderSpec
    | CsvSpec
    | CompositeSpec
    | DominoesSpec
    | OwnDatasetSpec,
    BY_KIND,
]
