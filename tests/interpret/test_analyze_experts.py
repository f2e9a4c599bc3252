"""Each expert's load, keywords, contexts and neighbours, on routings whose right answers are known."""

from __future__ import annotations

import numpy as np
import pytest
from made_subjects import DOMAINS, SHARED, WORDS, by_domain, made_request, made_subject, made_tokenizer, two_of_four
from scipy.stats import variation
from sklearn.feature_extraction.text import TfidfVectorizer

from spectra_exp.interpret.parts import maps
from spectra_exp.interpret.parts.contexts import KEPT, MOST_ALIKE, contexts
from spectra_exp.interpret.parts.keywords import LEAST_COUNT, keywords, top_terms, words_of
from spectra_exp.interpret.parts.load import load
from spectra_exp.interpret.parts.maps import expert_map, hidden_map
from spectra_exp.interpret.parts.neighbours import cosines, neighbours
from spectra_exp.interpret.registry import Request, parts
from spectra_exp.interpret.trace import group_counts
from spectra_exp.measure.balance import load_cv_of_draw


def rows(table, **wanted):
    for column, value in wanted.items():
        table = table[table[column] == value]
    return table


def test_the_load_is_by_domain_and_by_position() -> None:
    request = made_request(by_domain)
    result = load(request)
    table = result.tables["by_domain"]
    for place, domain in enumerate(DOMAINS):
        assert rows(table, domain=domain, expert=place)["share"].item() == 1
    trace = request.subject.trace
    assert result.tables["load"]["tokens"].sum() == trace.num_tokens
    early = result.tables["by_position"]
    assert early.groupby("from_position")["share"].sum().to_numpy() == pytest.approx(np.ones(16))
    first = rows(early, from_position="0", expert=0)["share"].item()
    assert first == pytest.approx((trace.first_NL[trace.positions_N < 2, 0] == 0).mean())


def test_what_the_draw_of_documents_gives_is_taken_from_the_load_cv() -> None:
    request = made_request(by_domain)
    trace, table = request.subject.trace, load(request).tables["balance"]
    counts_GE = group_counts(trace.documents_N, trace.experts_NLK[:, 0], int(trace.documents_N.max()) + 1, 4)
    row = table.iloc[0]
    assert row["load_cv"] == pytest.approx(variation(counts_GE.sum(axis=0)))
    assert row["of_documents"] == pytest.approx(load_cv_of_draw(counts_GE))
    assert row["beyond_documents"] ** 2 == pytest.approx(max(0, row["load_cv"] ** 2 - row["of_documents"] ** 2))


def test_the_draw_of_documents_gives_the_load_cv_that_drawing_documents_gives() -> None:
    # Documents of different lengths that each prefer an expert of their own; all experts are preferred alike.
    random = np.random.default_rng(0)

    def documents(count: int) -> np.ndarray:
        shares_GE = random.dirichlet(np.full(8, 0.5), count)
        return np.stack(
            [random.multinomial(n, p) for n, p in zip(random.integers(20, 400, count), shares_GE, strict=True)]
        )

    seen = np.sqrt(np.mean([variation(documents(100).sum(axis=0)) ** 2 for _ in range(400)]))
    told = np.mean([load_cv_of_draw(documents(100)) for _ in range(50)])
    assert told == pytest.approx(seen, rel=0.06)
    # Tokens of a document go alike, so that independent tokens would give far less.
    assert seen > 3 * np.sqrt(7 / documents(100).sum())
    assert np.isnan(load_cv_of_draw(documents(1)))


def test_the_keywords_of_a_domains_expert_are_the_domains_words() -> None:
    result = keywords(made_request(by_domain))
    for place, domain in enumerate(DOMAINS):
        first = rows(result.tables["keywords"], expert=place).head(5)["term"]
        assert set(first) == set(WORDS[domain].split())
    assert not set(result.tables["keywords"].groupby("expert").head(5)["term"]) & set(SHARED.split())
    ids = result.tables["token_ids"]
    assert (ids["in_text"] >= LEAST_COUNT).all() and set(ids["expert"]) == {0, 1, 2, 3}


def test_tfidf_is_scikit_learns_over_the_text_of_each_expert() -> None:
    subject = made_subject(by_domain)
    trace, words = subject.trace, words_of(subject.trace, subject.spelling)
    texts = []
    for expert in range(4):
        mine = np.unique(words.occurrence_N[(trace.first_NL[:, 0] == expert) & (words.occurrence_N >= 0)])
        texts.append([words.names[w] for w in words.word_W[mine]])
    frequent = {w for w, n in zip(words.names, np.bincount(words.word_W), strict=True) if n >= LEAST_COUNT}
    texts = [[word for word in text if word in frequent] for text in texts]
    vectorizer = TfidfVectorizer(analyzer=lambda text: text)
    expected = vectorizer.fit_transform(texts).toarray()
    for row in keywords(Request(subject)).tables["keywords"].to_dict("records"):
        column = vectorizer.vocabulary_[row["term"]]
        assert row["tfidf"] == pytest.approx(expected[row["expert"], column])
        others = np.delete(expected[:, column], row["expert"]).mean()
        assert row["contrast"] == pytest.approx(row["tfidf"] - others) and row["contrast"] > 0


def test_rare_terms_are_left_out() -> None:
    counts_ET = np.array([[LEAST_COUNT - 1, 5, 0], [0, 5, 9]])
    assert set(top_terms(counts_ET, counts_ET.sum(axis=0))["term"]) == {1, 2}
    assert len(top_terms(counts_ET, np.array([1, 1, 1]))) == 0


def test_words_are_whole_and_their_tokens_theirs() -> None:
    subject = made_subject(by_domain)
    words = words_of(subject.trace, subject.spelling)
    known = {w for line in WORDS.values() for w in line.split()} | set(SHARED.split())
    counts = np.bincount(words.word_W)
    assert {words.names[i] for i in np.flatnonzero(counts > 20)} == known
    zebra = words.names.index("zebra")
    first = int(np.flatnonzero(words.word_W == zebra)[0])
    tokens = np.flatnonzero(words.occurrence_N == first)
    spelled = "".join(subject.piece(i) for i in subject.trace.token_ids_N[tokens])
    assert spelled.strip() == "zebra" and (np.diff(tokens) == 1).all()


def test_a_letter_cut_in_two_parts_words_and_joins_none() -> None:
    ids = made_tokenizer().encode("créme near", add_special_tokens=False).ids
    trace = made_subject(by_domain).trace_of(ids)
    assert words_of(trace, made_subject(by_domain).spelling).names == ["cr", "me", "near"]


def test_contexts_are_of_the_experts_tokens_marked_and_various() -> None:
    request = made_request(two_of_four, top_k=2)
    table, trace = contexts(request).tables["contexts"], request.subject.trace
    for row in table.to_dict("records"):
        assert row["expert"] in trace.experts_NLK[row["token"], row["layer"]]
        assert row["marked"] == request.subject.piece(trace.token_ids_N[row["token"]])
        # First experts have the larger weight and come first.
        assert DOMAINS[row["expert"]] == row["domain"] and row["weight"] == pytest.approx(2 / 3)
    mine = rows(table, expert=1)
    assert list(mine["rank"]) == list(range(1, KEPT + 1))
    assert mine["token_id"].value_counts().max() <= MOST_ALIKE
    assert trace.documents_N[mine["token"]].size == KEPT
    assert np.bincount(trace.documents_N[mine["token"]]).max() <= MOST_ALIKE


def test_an_unused_expert_is_named_and_its_neighbours_are_empty() -> None:
    request = made_request(by_domain, num_experts=6)
    assert "layer 0 expert 4, layer 0 expert 5" in " ".join(contexts(request).notes)
    result = neighbours(request)
    outputs = result.tables["outputs"]
    assert rows(outputs, expert=5)["similarity"].isna().all()
    assert not set(rows(result.tables["nearest"], by="outputs")["neighbour"]) & {4, 5}
    weights = rows(result.tables["weights"], expert=5, other=5)["similarity"].item()
    assert weights == pytest.approx(1)


def test_neighbours_by_each_likeness() -> None:
    request = made_request(two_of_four, top_k=2)
    request.subject.engine.vectors_ED = np.array([[1, 0], [-1, 0], [0, 1], [0.9, 0.1]], dtype=np.float32)
    result = neighbours(request)
    nearest = rows(result.tables["nearest"], rank=1)
    assert rows(nearest, by="weights", expert=0)["neighbour"].item() == 3
    assert rows(result.tables["nearest"], by="weights", expert=3)["neighbour"].tolist() == [0, 2, 1]
    together = rows(result.tables["coactivation"], expert=0)
    # Expert 0 serves its own domain with expert 1, and that of expert 3 as the second.
    assert rows(together, other=2)["similarity"].item() == 0
    assert together["similarity"].sum() == pytest.approx(1)
    single = neighbours(made_request(by_domain))
    assert "coactivation" not in single.tables and any("k = 1" in note for note in single.notes)


def test_cosines_leave_out_what_has_no_direction() -> None:
    found = cosines(np.array([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]]))
    assert found[:2, :2] == pytest.approx(np.eye(2)) and np.isnan(found[2]).all()
    assert cosines(None) is None


def test_maps_keep_neighbours_together_and_are_the_same_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "MOST_TOKENS", 250)
    request = made_request(by_domain)
    first, again = (hidden_map(request).tables["tsne"] for _ in range(2))
    assert first.equals(again)
    # Equal token ids have equal hidden states here, so they must lie together.
    spread = first[["x", "y"]].std().mean()
    within = first.groupby("piece")[["x", "y"]].std().mean().mean()
    assert within < 0.5 * spread
    both = expert_map(Request(request.subject, made_subject(by_domain, name="other")))
    assert set(both.tables["experts"]["name"]) == {"made", "other"}


def test_umap_is_drawn_where_it_is_installed_and_missed_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "MOST_TOKENS", 100)
    monkeypatch.setattr(maps, "tsne", lambda points, seed: points[:, :2])
    monkeypatch.setattr(maps, "umap", lambda points, seed: points[:, 1:3])
    request = made_request(by_domain)
    for spec, names in ((None, ["tsne"]), (object(), ["tsne", "umap"])):
        monkeypatch.setattr(maps.importlib.util, "find_spec", lambda name, spec=spec: spec)
        result = hidden_map(request)
        assert list(result.tables) == names == list(result.pictures)
        assert any("No UMAP" in note for note in result.notes) == (spec is None)


def test_every_part_that_needs_several_experts_says_so_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "MOST_TOKENS", 100)

    def only(ids_N, documents_N):
        return np.zeros((len(ids_N), 1), dtype=int)

    request = made_request(only, num_experts=1)
    empty = {name for name, part in parts().items() if part.run(request).empty}
    assert {"keywords", "neighbours", "affinity", "vocabulary", "separation"} <= empty
    assert not {"load", "contexts", "cases", "explore"} & empty
