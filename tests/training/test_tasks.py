"""Tasks with a format and a score of their own: sorting, passkeys, RULER."""

import pickle
import re
import time
from collections import Counter

import numpy as np
import pytest
import torch

from wavecomp.training import PasskeyDataModule, RulerDataModule, SortDataModule
from wavecomp.training.data import by_count, effective_length, passkey_match, prompt_and_references, string_match
from wavecomp.training.data.ruler import FEWEST_WORDS, TASKS, zipf_counts
from wavecomp.training.data.samples import Sample
from wavecomp.training.data.tasks import Answer, Growth, write

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


@pytest.fixture(scope="module")
def essay(tmp_path_factory):
    path = tmp_path_factory.mktemp("essay") / "essay.txt"
    path.write_text(" ".join(f"Word{i} comes here." for i in range(2000)))
    return str(path)


def text_of(sample):
    return bytes(sample.tokens.tolist()).decode()


def make(kind, essay, **arguments):
    if kind in TASKS:
        has_essay = kind in {"niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multivalue", "niah_multiquery"}
        return RulerDataModule(task=kind, source=essay if has_essay else None, **arguments)
    return {"sort": SortDataModule, "passkey": PasskeyDataModule}[kind](**arguments)


KINDS = ["sort", "passkey", *TASKS]


@pytest.mark.parametrize("kind", KINDS)
def test_samples_depend_on_seed_and_number_alone(kind, essay):
    data = make(kind, essay, length=4500, batch_size=4)
    same, other = make(kind, essay, length=4500, batch_size=2), make(kind, essay, length=4500, seed=1)
    sample = data.train_sample(3)
    assert torch.equal(sample.tokens, same.train_sample(3).tokens)
    assert not torch.equal(sample.tokens, data.train_sample(4).tokens)
    assert not torch.equal(sample.tokens, other.train_sample(3).tokens)
    assert torch.equal(data.validation_set()[5].tokens, other.validation_set()[5].tokens)
    assert torch.equal(pickle.loads(pickle.dumps(data)).train_sample(3).tokens, sample.tokens)
    batch = next(iter(data.train_dataloader()))
    assert batch["lengths"] is None and batch["answers"].any(dim=1).all()
    assert batch["tokens"].max() < data.vocabulary


@pytest.mark.parametrize("kind", KINDS)
def test_the_length_grows_in_steps_and_is_kept(kind, essay):
    data = make(kind, essay, length=16_000, shortest=4000, curriculum=30, steps=2, batch_size=5)
    lengths = [len(data.train_sample(i).tokens) for i in range(40)]
    over = 21 if kind == "sort" else 0
    for first, length in ((0, 4000), (10, 8000), (20, 16_000), (30, 16_000)):
        # lists end with the last whole entry
        assert len(set(lengths[first : first + 10])) == 1 and length - 130 <= lengths[first] - over <= length
    assert len(data.validation_set()[0].tokens) == lengths[-1]


def test_lengths_that_were_reached_come_again_where_they_are_rehearsed():
    data = SortDataModule(length=1600, shortest=100, curriculum=400, steps=2, batch_size=4, rehearse=True)
    lengths = [len(data.train_sample(i).tokens) - 21 for i in range(1600)]
    assert all(len(set(lengths[first : first + 4])) == 1 for first in range(0, 1600, 4))
    assert set(lengths[:132]) == {100} and set(lengths[:264]) == {100, 400}
    counts = [lengths[400:].count(length) for length in (100, 400, 1600)]
    assert sum(counts) == 1200 and min(counts) > 300
    assert {len(data.validation_sample(i).tokens) for i in range(5)} == {1621}


@pytest.mark.parametrize("kind", KINDS)
def test_a_million_bytes_take_no_time(kind, essay):
    data = make(kind, essay, length=1_000_000)
    began = time.process_time()
    sample = data.train_sample(0)
    assert time.process_time() - began < 2.0  # a loop over bytes would take several times that
    assert 999_000 < len(sample.tokens) <= 1_000_021


def test_sort_asks_for_symbols_by_falling_count():
    data = SortDataModule(symbols=6, length=50)
    for index in range(20):
        sample = data.train_sample(index)
        line, target = sample.tokens[:50].tolist(), sample.tokens[51:].tolist()
        assert sample.tokens[50] == 6 and data.vocabulary == 7
        assert sample.answers.tolist() == [False] * 51 + [True] * 6
        counts = Counter(line)
        key = {s: (-counts[s], line.index(s) if s in counts else s + 100) for s in range(6)}
        assert target == sorted(range(6), key=key.get)


def test_by_count_breaks_ties_by_first_appearance_and_appends_what_is_missing():
    assert by_count(np.array([4, 2, 2, 4, 0]), 6).tolist() == [4, 2, 0, 1, 3, 5]


def test_sort_drifts_from_one_distribution_to_another():
    """A reader of the end alone, who knows the answers so far, is right as often as has been published."""
    data = SortDataModule(length=4000)
    right = {1024: [], 4000: []}
    for index in range(150):
        sample = data.validation_sample(index)
        for read, hits in right.items():
            scores = np.bincount(sample.tokens[4000 - read : 4000].numpy(), minlength=20).astype(float)
            for answer in sample.tokens[sample.answers].tolist():
                hits.append(int(scores.argmax()) == answer)
                scores[answer] = -1
    assert abs(np.mean(right[1024]) - 0.367) < 0.03
    assert abs(np.mean(right[4000]) - 0.982) < 0.01  # without the rule for ties


def test_a_passkey_is_said_once_and_asked_for():
    data = PasskeyDataModule(length=700)
    keys = set()
    for index in range(40):
        text = text_of(data.train_sample(index))
        introduction, before, line, after, question = text.split("\n")
        key = re.fullmatch(r"The pass key is (\d+)\. Remember it\. (\d+) is the pass key\.", line)
        assert key[1] == key[2] and 1 <= int(key[1]) <= 50_000
        assert question == f"What is the pass key? The pass key is {key[1]}." and len(text) == 700
        assert introduction.startswith("There is an important info hidden inside a lot of irrelevant text.")
        noise = (NOISE + " ") * 8
        assert noise.startswith(before) and noise.startswith(after)
        prompt, references = prompt_and_references(data.train_sample(index))
        assert references == [key[1] + "."] and bytes(prompt.tolist()).endswith(b" The pass key is ")
        keys.add(key[1])
    assert len(keys) > 35 and {len(key) for key in keys} >= {4, 5}


@pytest.mark.parametrize("depth", [0.0, 0.25, 1.0])
def test_depth_is_the_share_of_noise_before_the_line(depth):
    data, drawn = PasskeyDataModule(length=2000, depth=depth), PasskeyDataModule(length=2000)
    for index in range(5):
        _, before, line, after, _ = text_of(data.validation_sample(index)).split("\n")
        assert abs(len(before) - depth * (len(before) + len(after))) <= 0.5
        assert line in text_of(drawn.validation_sample(index))  # the same keys at every depth


def depths_of(data, count):
    gaps = [[len(part) for part in text_of(data.train_sample(i)).split("\n")] for i in range(count)]
    return np.array([before / (before + after) for _, before, _, after, _ in gaps])


def test_depth_is_drawn_uniformly_unless_given():
    depths = depths_of(PasskeyDataModule(length=2000), 300)
    assert np.histogram(depths, bins=5, range=(0, 1))[0].min() > 35


def test_a_share_of_the_numbers_stands_at_the_ends():
    depths = depths_of(PasskeyDataModule(length=2000, ends=0.5), 300)
    assert all(50 < (depths == end).sum() < 100 for end in (0, 1))
    between = depths[(depths > 0) & (depths < 1)]
    assert np.histogram(between, bins=5, range=(0, 1))[0].min() > 15


def test_several_passkeys_are_asked_for_in_another_order():
    data = PasskeyDataModule(length=3000, passkeys=12)
    orders = set()
    for index in range(5):
        text = text_of(data.train_sample(index))
        said = dict(re.findall(r"The pass key (\d+) is (\d+)\. Remember it\. \2 is the pass key \1\.", text))
        asked = re.findall(r"What is the pass key (\d+)\? The pass key \1 is (\d+)\.", text)
        assert len(text) == 3000 and len(said) == len(asked) == 12 and dict(asked) == said
        assert prompt_and_references(data.train_sample(index))[1] == [key + "." for _, key in asked]
        orders.add(tuple(name for name, _ in asked))
    assert len(orders) == 5


def test_passkeys_match_by_the_first_integer():
    assert passkey_match("the key is 0123, not 7", "123.")
    assert not passkey_match("1" * 5000, "123.") and passkey_match("0" * 5000, "0.")
    assert not passkey_match("7, then 123", "123.") and not passkey_match("", "123.")


NEEDLE = r"One of the special magic (numbers|uuids) for ([a-z]{6}|[0-9a-f-]{36}) is: (\d{7}|[0-9a-f-]{36})\."
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.mark.parametrize(
    "task, lines, keys, answers",
    [
        ("niah_single_1", 1, 1, 1),
        ("niah_single_2", 1, 1, 1),
        ("niah_single_3", 1, 1, 1),
        ("niah_multikey_1", 4, 4, 1),
        ("niah_multikey_2", None, None, 1),
        ("niah_multikey_3", None, None, 1),
        ("niah_multivalue", 4, 1, 4),
        ("niah_multiquery", 4, 4, 4),
    ],
)
def test_needles_are_hidden_whole_and_the_answers_are_theirs(task, lines, keys, answers, essay):
    data = make(task, essay, length=3000)
    places = []
    for index in range(20):
        sample = data.train_sample(index)
        text = text_of(sample)
        said = re.findall(NEEDLE, text)
        if lines is None:  # nothing but needles
            assert len(said) > 20 and len({key for _, key, _ in said}) == len(said)
            width = len("One of the special magic numbers for abcdef is: 1234567.\n")
            assert len(text) > 3000 - (width if task == "niah_multikey_2" else 2 * width)
        else:
            assert len(said) == lines and len({key for _, key, _ in said}) == keys and len(text) == 3000
        prompt, references = prompt_and_references(sample)
        question = re.search(
            r"\nWhat (is|are all) the special magic \w+ for (.*) mentioned in the provided text\? ", text
        )
        asked = re.split(r", (?:and )?", question[2])
        assert references == [value for key in asked for _, found, value in said if found == key]
        assert len(references) == answers and question[1] == ("is" if answers == 1 else "are all")
        assert text.startswith("A special magic " if answers == 1 else "Some special magic number")
        assert bytes(prompt.tolist()).endswith(f" mentioned in the provided text {question[1][:3].strip()} ".encode())
        places += [match.start() / 3000 for match in re.finditer(NEEDLE, text)]
        if "_3" in task:
            assert all(UUID.fullmatch(reference) for reference in references)
    assert min(places) < 0.25 and max(places) > 0.6


def test_needles_of_noise_stand_on_lines_of_their_own():
    lines = text_of(RulerDataModule(length=2000).train_sample(0)).split("\n")[1:-2]
    assert sum(bool(re.fullmatch(NEEDLE, line)) for line in lines) == 1
    assert sum(line == NOISE for line in lines) == len(lines) - 1 > 10


def test_needles_stand_between_the_words_of_an_essay(essay):
    data = RulerDataModule(task="niah_multikey_1", source=essay, length=3000)
    for index in range(5):
        _, text, _ = re.split(r"afterwards\.\n|\nWhat is", text_of(data.train_sample(index)))
        without = re.sub(NEEDLE + " ", "", text)
        with open(essay) as file:
            assert without in file.read()


def test_an_essay_that_is_too_short_is_said_again(tmp_path):
    (tmp_path / "short").write_text("abc ")
    data = RulerDataModule(task="niah_single_2", source=str(tmp_path / "short"), length=600)
    text = text_of(data.train_sample(0))
    assert len(text) == 600 and "abc abc abc " in text


def test_variables_form_a_chain_in_order():
    data = RulerDataModule(task="vt", length=2000)
    for index in range(10):
        sample = data.train_sample(index)
        text = text_of(sample)
        chain = re.findall(r"^VAR ([A-Z]{5}) = (.*)$", text, flags=re.M)
        names = [name for name, _ in chain]
        value = re.search(r"assigned the value (\d{5}) in the text above", text)[1]
        assert [given for _, given in chain] == [value] + [f"VAR {name}" for name in names[:-1]]
        assert len(set(names)) == 5 and prompt_and_references(sample)[1] == names
        assert text.endswith(f"5 variables are assigned the value {value}, they are: {' '.join(names)}")


def test_common_words_come_thirty_times_and_others_three_times():
    data = RulerDataModule(task="cwe", length=12_000)
    for index in range(5):
        sample = data.train_sample(index)
        listed = text_of(sample).split("\n")[1].split(" ")
        numbers, words = listed[::2], listed[1::2]
        assert numbers == [f"{i}." for i in range(1, len(words) + 1)] and 12_000 - 50 < len(sample.tokens) <= 12_000
        counts = Counter(words)
        common = [word for word in counts if counts[word] == 30]
        assert Counter(counts.values()) == {30: 10, 3: len(counts) - 10} and len(counts) > 100
        assert prompt_and_references(sample)[1] == common  # Counter keeps the order of first appearance
    assert text_of(sample).endswith(f"in the list are: {' '.join(f'{i}. {w}' for i, w in enumerate(common, start=1))}")


def test_frequent_words_follow_zipf_below_the_noise():
    data = RulerDataModule(task="fwe", length=20_000)
    for index in range(5):
        sample = data.train_sample(index)
        words = re.search(r"coded words\. (.*)\nQuestion", text_of(sample))[1].split(" ")
        (noise, first), *ranked = Counter(words).most_common()
        assert noise == "..." and all(re.fullmatch("[a-z]{6}", word) for word, _ in ranked)
        assert all(abs(count - first / rank**2) <= 1 for rank, (_, count) in enumerate(ranked, start=2))
        assert prompt_and_references(sample)[1] == [word for word, _ in ranked[:3]]
        assert 20_000 - 50 < len(sample.tokens) <= 20_000


def test_the_most_frequent_words_are_never_tied():
    for count in range(FEWEST_WORDS, 3000):
        counts = zipf_counts(count)
        assert (np.diff(counts[:5]) < 0).all() and counts[-1] >= 1


def test_of_several_tasks_each_sample_draws_one(essay):
    several = ["niah_single_1", "niah_multikey_1", "vt"]
    data = RulerDataModule(task=several, source=essay, length=2000, shortest=1000, curriculum=200, batch_size=8)
    texts = [text_of(data.train_sample(index)) for index in range(300)]
    kinds = ["vt" if "chain(s)" in text else "niah_single_1" if NOISE in text else "niah_multikey_1" for text in texts]
    assert all(text.count("One of the special magic") == 4 for text, kind in zip(texts, kinds) if kind == several[1])
    assert min(Counter(kinds[:8]).values()) < 8 and min(Counter(kinds)[kind] for kind in several) > 80
    assert {len(text) for text in texts[:32]} == {1000} and {len(text) for text in texts[200:]} == {2000}
    assert len({text.partition("\n")[0] for text in map(text_of, data.validation_set())}) == 2  # vt and needles


def test_string_match_counts_references_of_any_case():
    assert string_match("ABC and def", ["abc", "DEF", "ghi"]) == pytest.approx(2 / 3)
    assert string_match("", ["abc"]) == 0


def test_the_effective_length_ends_where_the_score_first_falls():
    assert effective_length({8192: 90, 4096: 86, 16_384: 85.6, 32_768: 99}) == 8192
    assert effective_length({4096: 50, 8192: 90}) == 0


def test_prompts_end_before_the_first_answer():
    sample = write("a ", Answer("é1"), ", ", Answer("2"), ".")
    prompt, references = prompt_and_references(sample)
    assert bytes(prompt.tolist()) == b"a " and references == ["é1", "2"]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: SortDataModule(symbols=1), "symbols=1 is too small; allowed: 2 and above"),
        (lambda: SortDataModule(length=19), "length=19 does not hold symbols=20; allowed: 20 and above"),
        (lambda: SortDataModule(shortest=5), "shortest=5 does not hold symbols=20"),
        (lambda: SortDataModule(length=50, shortest=60), "shortest=60 is out of range; allowed: 1 to length=50"),
        (lambda: SortDataModule(steps=0), "steps=0 is too small"),
        (lambda: SortDataModule(curriculum=-1), "curriculum=-1 is negative; allowed: 0 and above"),
        (lambda: SortDataModule(validation_samples=0), "validation_samples=0 is too small"),
        (lambda: SortDataModule(num_workers=-1), "num_workers=-1 is negative"),
        (lambda: PasskeyDataModule(passkeys=0), "passkeys=0 is too small; allowed: 1 and above"),
        (lambda: PasskeyDataModule(length=253), "length=253 does not hold passkeys=1; allowed: 254 and above"),
        (lambda: PasskeyDataModule(passkeys=20), "length=1024 does not hold passkeys=20; allowed: 2"),
        (lambda: PasskeyDataModule(depth=-0.1), "depth=-0.1 is out of range; allowed: 0 to 1, or None"),
        (lambda: PasskeyDataModule(depth=1.01), "depth=1.01 is out of range"),
        (lambda: PasskeyDataModule(depth=float("nan")), "depth=nan is out of range"),
        (lambda: PasskeyDataModule(depth=0.5, passkeys=2), "depth=0.5 places one passkey, not passkeys=2"),
        (lambda: PasskeyDataModule(ends=1.5), "ends=1.5 is out of range; allowed: 0 to 1"),
        (lambda: PasskeyDataModule(ends=0.5, passkeys=2), "ends=0.5 is for one passkey at any depth; allowed: 0"),
        (lambda: RulerDataModule(task="niah"), "task='niah' is unknown; allowed: niah_single_1, .*, vt, cwe, fwe"),
        (lambda: RulerDataModule(task=[]), "task=.. is unknown"),
        (lambda: RulerDataModule(task=["vt", "vtt"]), "task=.'vt', 'vtt'. is unknown; allowed: .*, or several of them"),
        (lambda: RulerDataModule(task=["vt", "cwe"], length=3000), "length=3000 does not hold task='cwe'"),
        (lambda: RulerDataModule(task="vt", source="x"), "source='x' is of no use to task='vt'.*; allowed: None"),
        (lambda: RulerDataModule(length=341), "length=341 does not hold task='niah_single_1'; allowed: 342 and above"),
        (lambda: RulerDataModule(task="cwe", length=3000), "length=3000 does not hold task='cwe'; allowed: 38"),
        (lambda: RulerDataModule(task="fwe", length=500), "length=500 does not hold task='fwe'"),
        (lambda: Growth(shortest=0, length=5, steps=1), "shortest=0 is out of range; allowed: 1 to length=5"),
        (lambda: string_match("a", []), "references are empty; allowed: one and above"),
        (lambda: passkey_match("1", "none"), "reference='none' has no integer"),
        (lambda: prompt_and_references(Sample(torch.ones(3).long())), "has no answer after a prompt"),
        (lambda: prompt_and_references(write(Answer("a"), "b")), "has no answer after a prompt"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("kind", KINDS)
def test_the_shortest_that_is_allowed_works(kind, essay):
    with pytest.raises(ValueError) as caught:
        make(kind, essay, length=1)
    least = int(re.search(r"allowed: (\d+) and above", str(caught.value))[1])
    sample = make(kind, essay, length=least).train_sample(0)
    assert sample.answers.any() and len(sample.tokens) <= least + 21
