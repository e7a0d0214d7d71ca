"""What a layer's inputs are like, estimated from images."""

from __future__ import annotations

import numpy as np
from networks import pixels, random_state

from squeezenet_paddle.compression.walk import Walk, covariances
from squeezenet_paddle.network.config import ModelConfig, layers


def test_one_vector_an_image_gives_shrunk_covariances() -> None:
    config = ModelConfig(num_classes=3, head="conv_fc")
    state, images = random_state(config), list(pixels(config, 12, 40))
    walks = [Walk(config, images, threads=1) for _ in range(2)]
    layer = next(each for each in layers(config) if each.type == "InnerProduct")
    for walk in walks:
        walk.advance(layer, state)
    vectors = np.stack([walks[0].inputs(layer, i).ravel() for i in range(12)]).astype("float64")
    hessian, cross, mean, _ = covariances(layer, *walks)
    expected = np.cov(vectors.T, bias=True)
    expected = (expected + np.diag(np.diag(expected))) / 2
    np.testing.assert_allclose(mean, vectors.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(hessian, expected, atol=1e-6)
    np.testing.assert_array_equal(cross, hessian)  # of the same network twice


def test_maps_give_the_covariances_of_all_places() -> None:
    config = ModelConfig(num_classes=3)
    state, images = random_state(config), list(pixels(config, 2, 40))
    walks = [Walk(config, images, threads=1) for _ in range(2)]
    layer = next(each for each in layers(config) if each.name == "fire2/squeeze1x1")
    for walk in walks:
        walk.advance(layer, state)
    vectors = np.concatenate([walks[0].inputs(layer, i).reshape(64, -1) for i in range(2)], axis=1)
    expected = np.cov(vectors.astype("float64"), bias=True)
    np.testing.assert_allclose(covariances(layer, *walks)[0], expected, rtol=1e-4, atol=1e-4)
