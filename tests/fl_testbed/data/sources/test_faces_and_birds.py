"""Image files named by tables: FairFace, CelebA, Waterbirds, and a user's own folder."""

import zipfile

import numpy as np
import pytest
from PIL import ExifTags, Image
from published import assert_sound, values_of, write, write_image

from fl_testbed.data import DataError
from fl_testbed.data.groups import groups_by
from fl_testbed.data.sources import (
    Meanings,
    load_celeba,
    load_fairface,
    load_image_folder,
    load_waterbirds,
)


class TestFairFace:
    @pytest.fixture
    def folder(self, tmp_path):
        """Three faces to train on and one to test on."""
        folder = tmp_path / "fairface"
        header = "file,age,gender,race,service_test\n"
        write(
            folder / "fairface_label_train.csv",
            header
            + "train/1.jpg,50-59,Male,East Asian,True\n"
            + "train/2.jpg,more than 70,Female,Black,False\n"
            + "train/3.jpg,0-2,Female,Latino_Hispanic,False\n",
        )
        write(folder / "fairface_label_val.csv", f"{header}val/1.jpg,3-9,Male,White,True\n")
        for value, name in enumerate(("train/1.jpg", "train/2.jpg", "train/3.jpg", "val/1.jpg")):
            write_image(folder / name, 10 * value)
        return folder

    def test_the_published_format_is_read(self, folder):
        faces = load_fairface(folder.parent, size=4)
        assert_sound(faces)
        assert faces.input_shape == (3, 4, 4)
        assert values_of(faces.train.inputs) == [0, 10, 20]
        assert values_of(faces.test.inputs) == [30]
        assert [faces.classes[label] for label in faces.train.labels] == [
            "Male",
            "Female",
            "Female",
        ]
        races = [faces.attributes["race"][code] for code in faces.train.attributes["race"]]
        assert races == ["East Asian", "Black", "Latino_Hispanic"]

    def test_any_attribute_can_be_learnt(self, folder):
        faces = load_fairface(folder.parent, target="age", size=4)
        assert [faces.classes[label] for label in faces.train.labels] == [
            "50-59",
            "more than 70",
            "0-2",
        ]
        assert load_fairface(folder.parent, target="race", size=4).n_classes == 7

    def test_images_may_be_in_a_zip_file(self, folder):
        with zipfile.ZipFile(folder / "faces.zip", "w") as archive:
            for path in sorted(folder.rglob("*.jpg")):
                archive.write(path, path.relative_to(folder).as_posix())
                path.unlink()
        assert values_of(load_fairface(folder.parent, size=4).train.inputs) == [0, 10, 20]
        (folder / "faces.zip").rename(folder / "faces.tar")
        with pytest.raises(DataError, match=r":2: train/1.jpg is not in .* \(found none\)"):
            load_fairface(folder.parent)

    def test_only_the_first_of_each_file_are_read_where_asked_for(self, folder):
        (folder / "train" / "3.jpg").unlink()
        faces = load_fairface(folder.parent, size=4, limit=2)
        assert (len(faces.train), len(faces.test)) == (2, 1)

    @pytest.mark.parametrize(
        ("old", "new", "fault"),
        [
            ("train/3.jpg", "train/9.jpg", ":4: train/9.jpg is not in "),
            ("train/3.jpg", "train/1.jpg", ":4: file train/1.jpg is in line 2 already"),
            ("0-2,Female", "0-2,Femal", ":4: gender needs one of Female, Male, got 'Femal'"),
            ("50-59", "May-59", ":2: age needs one of 0-2, 3-9,"),
            (
                "gender",
                "sex",
                ": has no column 'gender'; its columns: file, age, sex, race, service_test",
            ),
        ],
    )
    def test_a_broken_label_file_is_one_line_with_the_row(self, folder, old, new, fault):
        path = folder / "fairface_label_train.csv"
        path.write_text(path.read_text().replace(old, new, 1))
        with pytest.raises(DataError) as error:
            load_fairface(folder.parent)
        assert str(error.value).startswith(f"{path}{fault}")
        assert "\n" not in str(error.value)

    def test_the_shared_files_have_the_counts_of_their_readme(self, data_dir):
        faces = load_fairface(data_dir)
        assert_sound(faces)
        assert faces.input_shape == (3, 32, 32)
        groups = groups_by(faces, ["race", "gender"])
        table = [
            (531, 501, 155, 167),
            (476, 466, 138, 166),
            (502, 519, 117, 125),
            (534, 554, 156, 125),
            (248, 489, 69, 145),
            (394, 441, 107, 139),
            (637, 708, 193, 198),
        ]
        counts = [np.bincount(part).reshape(7, 2) for part in (groups.train, groups.test)]
        assert np.hstack(counts).tolist() == [list(row) for row in table]
        ages = [np.bincount(part.attributes["age"]) for part in (faces.train, faces.test)]
        assert ages[0].tolist() == [159, 836, 806, 1_959, 1_601, 838, 518, 222, 61]
        assert ages[1].tolist() == [35, 253, 220, 606, 420, 228, 159, 61, 18]
        assert faces.train.inputs.std() > 40  # faces, not grey squares


class TestCelebA:
    @pytest.fixture
    def folder(self, tmp_path):
        """Two faces to train on, one for validation and two to test on."""
        folder = tmp_path / "celeba"
        names = [f"{i:06}.jpg" for i in range(1, 6)]
        blond, male = [-1, 1, 1, -1, 1], [1, -1, -1, -1, 1]
        rows = [f"{n} {b:>2} {m:>2}" for n, b, m in zip(names, blond, male, strict=True)]
        write(folder / "list_attr_celeba.txt", "\n".join(["5", "Blond_Hair Male ", *rows, ""]))
        write(
            folder / "list_eval_partition.txt",
            "".join(f"{n} {s}\n" for n, s in zip(names, "00122", strict=True)),
        )
        people = zip(names, (2880, 55, 2880, 55, 2880), strict=True)
        lines = [f"{name} {person}\n" for name, person in people]
        write(folder / "identity_CelebA.txt", "".join([lines[0], *reversed(lines[1:])]))
        for value, name in enumerate(names):
            write_image(folder / "img_align_celeba" / name, 10 * value)
        return folder

    def test_torchvision_s_layout_is_read(self, folder):
        faces = load_celeba(folder.parent, size=4)
        assert_sound(faces)
        assert values_of(faces.train.inputs) == [0, 10]
        assert values_of(faces.test.inputs) == [30, 40]
        assert faces.classes == ("not Blond_Hair", "Blond_Hair")
        assert faces.train.labels.tolist() == [0, 1]
        assert faces.test.attributes["Male"].tolist() == [0, 1]
        assert faces.attributes["Male"] == ("not Male", "Male")
        assert faces.train.clients.tolist() == [0, 1]
        assert faces.test.clients.tolist() == [1, 0]

    def test_another_attribute_can_be_learnt(self, folder):
        assert load_celeba(folder.parent, "Male", size=4).train.labels.tolist() == [1, 0]
        with pytest.raises(
            DataError, match="has no attribute 'Bald'; its attributes: Blond_Hair, Male"
        ):
            load_celeba(folder.parent, "Bald")

    @pytest.mark.parametrize(
        ("name", "old", "new", "fault"),
        [
            ("list_attr_celeba.txt", "5\n", "6\n", ": needs 6 rows, has 5"),
            ("list_attr_celeba.txt", "000004.jpg -1", "000004.jpg", ":6: needs 3 columns"),
            ("list_attr_celeba.txt", "000001.jpg -1", "000001.jpg 0", "Blond_Hair needs one of"),
            ("list_attr_celeba.txt", "000002", "000001", ":4: image 000001.jpg is in line 3"),
            ("list_eval_partition.txt", "000002.jpg 0\n", "", ":4: 000002.jpg is not in"),
            ("identity_CelebA.txt", "2880", "28 80", ":1: needs an image and a value"),
        ],
    )
    def test_a_broken_list_is_one_line_with_the_row(self, folder, name, old, new, fault):
        path = folder / name
        path.write_text(path.read_text().replace(old, new, 1))
        with pytest.raises(DataError) as error:
            load_celeba(folder.parent)
        assert fault in str(error.value)
        assert "\n" not in str(error.value)


class TestWaterbirds:
    @pytest.fixture
    def folder(self, tmp_path):
        """Two birds to train on, one for validation and one to test on."""
        folder = tmp_path / "waterbirds_v1.0"
        rows = ["001.A/a.jpg,0,0,1", "001.A/b.jpg,1,0,1", "002.B/c.jpg,1,1,0", "002.B/d.jpg,0,2,0"]
        header = "img_id,img_filename,y,split,place,place_filename\n"
        lines = [f"{i},{row},/o/ocean/00000{i}.jpg\n" for i, row in enumerate(rows, start=1)]
        write(folder / "metadata.csv", header + "".join(lines))
        for value, row in enumerate(rows):
            write_image(folder / row.split(",")[0], 10 * value, size=(5 + value, 7))
        return folder

    def test_wilds_s_layout_is_read(self, folder):
        birds = load_waterbirds(folder.parent, size=4)
        assert_sound(birds)
        assert birds.train.labels.tolist() == [0, 1]
        assert birds.train.attributes["place"].tolist() == [1, 1]
        assert values_of(birds.test.inputs) == [30]
        assert groups_by(birds, ["label", "place"]).names[1] == "landbird, water"

    @pytest.mark.parametrize(
        ("old", "new", "fault"),
        [
            ("001.A/b", "001.A/x", ":3: 001.A/x.jpg is not in"),
            ("\n2,", "\n1,", ":3: img_id 1 is in line 2 already"),
            ("a.jpg,0", "a.jpg,2", ":2: y needs one of 0, 1, got '2'"),
            (",split", ",set", ": has no column 'split'"),
        ],
    )
    def test_broken_metadata_are_one_line_with_the_row(self, folder, old, new, fault):
        path = folder / "metadata.csv"
        path.write_text(path.read_text().replace(old, new, 1))
        with pytest.raises(DataError) as error:
            load_waterbirds(folder.parent)
        assert str(error.value).startswith(f"{path}{fault}")


class TestImageFolder:
    @pytest.fixture
    def folder(self, tmp_path):
        """Eight leaves of two kinds from four gardens, two of them for testing."""
        folder = tmp_path / "leaves"
        rows = [
            f"{i}.png,{'oak' if i % 2 else 'ash'},{'sun' if i < 6 else 'rain'},g{i // 2},"
            f"{'test' if i in (3, 6) else 'train'}\n"
            for i in range(8)
        ]
        write(folder / "labels.csv", "image,label,weather,garden,split\n" + "".join(rows))
        for value in range(8):
            write_image(folder / f"{value}.png", 10 * value)
        return folder

    def load(self, folder, seed: int = 0, **meanings):
        rng = np.random.default_rng(seed)
        return load_image_folder(folder.parent, rng, "leaves", Meanings(**meanings))

    def test_the_table_says_what_each_image_is(self, folder):
        leaves = self.load(folder, attributes=["weather"], client="garden", split="split")
        assert_sound(leaves)
        assert leaves.classes == ("ash", "oak")
        assert leaves.attributes == {"weather": ("rain", "sun")}
        assert values_of(leaves.test.inputs) == [30, 60]
        assert leaves.test.labels.tolist() == [1, 0]
        assert leaves.test.attributes["weather"].tolist() == [1, 0]
        assert leaves.train.clients.tolist() == [0, 0, 1, 2, 2, 3]

    def test_photos_are_turned_as_the_camera_noted(self, folder):
        assert self.load(folder).input_shape == (3, 4, 6)
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        for path in folder.glob("*.png"):
            Image.open(path).save(path, exif=exif)
        assert self.load(folder).input_shape == (3, 6, 4)

    def test_without_a_split_whole_clients_are_held_out(self, folder):
        for seed in range(4):
            leaves = self.load(folder, seed, client="garden", test_fraction=0.25)
            assert_sound(leaves)
            assert len(set(leaves.test.clients)) == 1
            assert not set(leaves.train.clients) & set(leaves.test.clients)

    def test_without_clients_examples_are_held_out(self, folder):
        leaves = self.load(folder, test_fraction=0.25)
        assert_sound(leaves)
        assert (len(leaves.train), len(leaves.test)) == (6, 2)
        assert len(self.load(folder, test_fraction=0.99).train) == 1  # never none at all
        drawn = {tuple(self.load(folder, seed).test.ids) for seed in range(4)}
        assert len(drawn) > 1

    @pytest.mark.parametrize(
        ("options", "old", "new", "fault"),
        [
            ({}, "3.png", "9.png", ":5: 9.png is not in"),
            ({}, "3.png", "2.png", ":5: image 2.png is in line 4 already"),
            ({"client": "park"}, "", "", ": has no column 'park'; its columns: image, label, "),
            (
                {"split": "split"},
                "test",
                "dev",
                ":5: split needs one of train, test, got 'dev'",
            ),
            ({"split": "split"}, "train", "test", ": split must say train for some rows"),
        ],
    )
    def test_a_broken_table_is_one_line_with_the_row(self, folder, options, old, new, fault):
        path = folder / "labels.csv"
        every = -1 if new == "test" else 1
        path.write_text(path.read_text().replace(old, new, every))
        with pytest.raises(DataError) as error:
            self.load(folder, **options)
        assert str(error.value).startswith(f"{path}{fault}")
