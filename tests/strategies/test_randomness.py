from strategies.randomness import Purpose, generator


def test_no_two_places_share_a_stream():
    attack, training = Purpose.ATTACK, Purpose.TRAINING
    places = [
        (0, attack, 1, 2),
        (0, attack, 2, 1),
        (0, attack, 3),
        (0, training, 3),
        (1, attack, 3),
    ]
    assert len({generator(*place).integers(2**62) for place in places}) == len(places)
