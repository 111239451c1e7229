"""Datasets that a scenario can name."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from numpy.random import Generator
from pydantic import Field

from fl_testbed.data import Dataset, load_digits, load_fashion_mnist, long_tailed
from fl_testbed.scenario.minorities import AnyMinoritySpec, InvertedSpec
from fl_testbed.scenario.spec import Spec


class LongTailSpec(Spec):
    """Classes thinned out so that their sizes fall geometrically from the first to the last."""

    ratio: Annotated[float, Field(ge=1)]  # of the first class's size to the last's
    test: bool = True  # whether the test set is thinned out too


class DatasetSpec(Spec):
    """What every dataset answers."""

    n_classes: ClassVar[int | None] = None
    """How many classes there are, where that is known before the data are read."""
    minority: AnyMinoritySpec = InvertedSpec()
    long_tail: LongTailSpec | None = None  # none: all examples of each class

    @property
    def split_by_seed(self) -> bool:
        """Whether the seed decides which examples are for testing."""
        return False

    def read(self, data_dir: Path | None, rng: Generator) -> Dataset:
        """Read the files.

        Args:
            data_dir: The folder of datasets.
            rng: Draws the split, where the publisher made none.

        Raises:
            DataError: If they are not there or are broken.
        """
        raise TypeError(f"{type(self).__name__} has no files")

    def load(self, data_dir: Path | None, rng: Generator) -> Dataset:
        """Read the files, and thin out classes if the scenario says so."""
        dataset = self.read(data_dir, rng)
        if self.long_tail is None:
            return dataset
        return long_tailed(dataset, self.long_tail.ratio, test=self.long_tail.test)

    def identity(self, seed: int) -> tuple[Any, ...]:
        """Return what decides on the examples: equal identities load equal datasets."""
        fields = self.model_dump_json(exclude={"minority"})
        return (fields, seed if self.split_by_seed else None)


class DigitsSpec(DatasetSpec):
    """scikit-learn's bundled digits, 8 × 8; needs no files."""

    kind: Literal["digits"]
    n_classes: ClassVar[int | None] = 10

    @property
    def split_by_seed(self) -> bool:
        """The seed draws the test set."""
        return True

    def read(self, data_dir: Path | None, rng: Generator) -> Dataset:
        """Return the digits."""
        return load_digits(rng)


class FashionMnistSpec(DatasetSpec):
    """Fashion-MNIST, 28 × 28 clothing, from the data folder."""

    kind: Literal["fashion_mnist"]
    n_classes: ClassVar[int | None] = 10

    def read(self, data_dir: Path | None, rng: Generator) -> Dataset:
        """Read the four IDX files."""
        return load_fashion_mnist(data_dir)


AnyDatasetSpec = Annotated[DigitsSpec | FashionMnistSpec, Field(discriminator="kind")]
