import numpy as np

from fl_testbed.data.styles import faded, inverted, rotated


def test_dark_becomes_light_and_twice_is_the_image_itself():
    image = np.array([0, 0.25, 1], dtype=np.float32)
    assert inverted(image).tolist() == [1, 0.75, 0]
    assert inverted(image).dtype == np.float32
    assert np.array_equal(inverted(inverted(image)), image)


def test_haze_lifts_black_to_grey_and_leaves_white():
    image = np.array([0, 0.5, 1], dtype=np.float32)
    assert faded(image, 0.25).tolist() == [0.75, 0.875, 1]
    assert faded(image, 0.25).dtype == np.float32


def test_a_quarter_turn_moves_the_right_edge_to_the_top():
    images = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)
    assert rotated(images, 1)[0, 0].tolist() == [[1, 3], [0, 2]]
    assert rotated(images, 1)[1, 0].tolist() == [[5, 7], [4, 6]]
    assert np.array_equal(rotated(rotated(images, 3), 1), images)
