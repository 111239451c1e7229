import numpy as np

from fl_testbed.data.minority import inverted


def test_dark_becomes_light_and_twice_is_the_image_itself():
    image = np.array([0, 0.25, 1], dtype=np.float32)
    assert inverted(image).tolist() == [1, 0.75, 0]
    assert inverted(image).dtype == np.float32
    assert np.array_equal(inverted(inverted(image)), image)
