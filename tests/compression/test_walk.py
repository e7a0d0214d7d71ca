"""What a layer's inputs are like, estimated from images."""

from __future__ import annotations

import numpy as np
from networks import pixels, random_state

from squeezenet_paddle.compression.walk import Walk, moments_of
from squeezenet_paddle.network.config import ModelConfig, layers


def test_one_vector_an_image_gives_shrunk_covariances() -> None:
    config = ModelConfig(num_classes=3, head="conv_fc")
    state, images = random_state(config), list(pixels(config, 12, 40))
    walks = [Walk(config, images, threads=1) for _ in range(2)]
    layer = next(each for each in layers(config) if each.type == "InnerProduct")
    for walk in walks:
        walk.advance(layer, state)
    vectors = np.stack([walks[0].inputs(layer, i).ravel() for i in range(12)]).astype("float64")
    found = moments_of(layer, *walks)
    expected = np.cov(vectors.T, bias=True)
    expected = (expected + np.diag(np.diag(expected))) / 2
    np.testing.assert_allclose(found.mean, vectors.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.hessian, expected, atol=1e-6)
    np.testing.assert_array_equal(found.cross, found.hessian)  # of the same network twice
    np.testing.assert_allclose(found.of_images, expected, atol=1e-6)


def test_maps_give_the_covariances_of_all_places_and_of_their_averages() -> None:
    config = ModelConfig(num_classes=3)
    state, images = random_state(config), list(pixels(config, 3, 40))
    walks = [Walk(config, images, threads=1) for _ in range(2)]
    layer = next(each for each in layers(config) if each.name == "fire2/squeeze1x1")
    for walk in walks:
        walk.advance(layer, state)
    maps = [walks[0].inputs(layer, i).reshape(64, -1).astype("float64") for i in range(3)]
    found = moments_of(layer, *walks)
    places = np.cov(np.concatenate(maps, axis=1), bias=True)
    np.testing.assert_allclose(found.hessian, places, rtol=1e-4, atol=1e-4)
    averages = np.cov(np.stack([x.mean(axis=1) for x in maps], axis=1), bias=True)
    np.testing.assert_allclose(found.of_images, averages, rtol=1e-4, atol=1e-4)
