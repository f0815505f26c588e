"""What steps remember grows in place, and a state can be gone on from twice."""

import torch
import zoo

import wavecomp as wc
from wavecomp.networks.growing import Growing


@torch.no_grad()
def test_it_is_seldom_copied():
    growing, rooms = Growing(torch.zeros(2, 1)), set()
    for number in range(1, 1000):
        growing.append(torch.full((2, 1), float(number)))
        rooms.add(growing.room.data_ptr())
    assert torch.equal(growing.tensor, torch.arange(1000.0).expand(2, -1)) and len(rooms) < 12


@torch.no_grad()
def test_what_is_dropped_at_the_beginning_gives_its_room_back():
    growing = Growing(torch.zeros(2, 4, 3), axis=1)
    for number in range(200):
        growing.append(torch.full((2, 1, 3), float(number)))
        growing.drop(1)
        assert growing.room.shape[1] <= 16
    assert growing.tensor[1, :, 2].tolist() == [196, 197, 198, 199]


@torch.no_grad()
def test_some_places_are_kept():
    growing = Growing(torch.arange(1000.0).repeat(2, 1))
    growing.keep(2, torch.arange(998) % 100 == 7)
    assert growing.tensor[0].tolist() == [0, 1, *range(9, 1000, 100)]
    growing.append(torch.ones(2, 1))
    assert growing.tensor[1, -2:].tolist() == [909, 1]


@torch.no_grad()
def test_copies_do_not_disturb_each_other():
    one = Growing(torch.zeros(1, 4))
    one.append(torch.ones(1, 1))
    other = one.copy()
    room = one.room.data_ptr()
    one.append(torch.full((1, 2), 2.0))
    other.append(torch.full((1, 1), 3.0))
    other.drop(4)
    assert one.tensor[0].tolist() == [0, 0, 0, 0, 1, 2, 2] and other.tensor[0].tolist() == [1, 3]
    assert one.room.data_ptr() == room != other.room.data_ptr()


def test_gradients_pass_and_inference_mode_is_left():
    further = torch.ones(1, 2, requires_grad=True)
    growing = Growing(torch.zeros(1, 1))
    for _ in range(3):
        growing.append(further)
    (gradient,) = torch.autograd.grad(growing.tensor.square().sum(), further)
    assert gradient.tolist() == [[6, 6]]
    with torch.inference_mode():
        growing = Growing(torch.zeros(1, 1))
        growing.append(torch.ones(1, 3))
    growing.append(torch.ones(1, 1))
    assert growing.tensor.tolist() == [[0, 1, 1, 1, 1]]


def test_what_a_gradient_needs_is_not_written_over():
    """Also where what grows needs none itself."""
    scale = torch.ones((), requires_grad=True)
    growing, total = Growing(torch.ones(1, 1)), 0.0
    for _ in range(5):
        growing.append(torch.ones(1, 1))
        total = total + (scale * growing.tensor).square().sum()
        growing.keep(1, torch.arange(growing.length - 1) % 2 == 0)
    total.backward()
    assert float(scale.grad) > 0


@torch.no_grad()
def test_a_state_of_a_reduce_network_is_gone_on_from_twice():
    network = zoo.perturb(wc.ReduceNetwork(dim=zoo.DIM, heads=2, layers=2, window=None))
    codes = wc.Codes.from_tokens(torch.randn(2, 60, zoo.DIM))
    begun, state = network.step(codes.part(0, 30))
    for _ in range(2):
        noise = codes.part(30, 40).replace(values=torch.randn(2, 10, zoo.DIM))
        network.step(noise, state)
        ended, _ = network.step(codes.part(30, 60), state)
        made = torch.cat([begun.values, ended.values], dim=1)
        torch.testing.assert_close(made, network(codes).values, rtol=0, atol=1e-5)
