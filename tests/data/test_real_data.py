import pytest

from steadygrad import data


@pytest.mark.slow
@pytest.mark.usefixtures("data_root")
def test_mnist():
    train = data.load("mnist")
    x, _ = train.tensors()
    assert (len(train), train.shape) == (60_000, (1, 28, 28))
    assert abs(float(x.mean()) - 0.1307) < 5e-5
    assert abs(float(x.std()) - 0.3081) < 5e-5
    assert train.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@pytest.mark.slow
@pytest.mark.usefixtures("data_root")
def test_cifar10():
    train, test = data.load("cifar10"), data.load("cifar10", "test")
    assert (len(train), len(test), test.shape) == (50_000, 1_000, (3, 32, 32))
    assert train.labels.bincount().tolist() == [5_000] * 10
    mean = train.images.double().mean((0, 2, 3)) / 255
    assert [round(v, 4) for v in mean.tolist()] == [0.4914, 0.4822, 0.4465]
    assert test.classes[3] == "cat"


@pytest.mark.usefixtures("data_root")
def test_mnist_test_split():
    mnist = data.load("mnist", "test")
    assert (len(mnist), mnist.labels[:5].tolist(), mnist.ids[17]) == (10_000, [7, 2, 1, 0, 4], "mnist/test/00017")


@pytest.mark.slow
@pytest.mark.usefixtures("data_root")
def test_notmnist():
    letters = data.load("notmnist", "test", color="rgb", size=32)
    assert (len(letters), letters.shape, "".join(letters.classes)) == (2_000, (3, 32, 32), "ABCDEFGHIJ")
    assert len(data.load("notmnist")) == 8_000
