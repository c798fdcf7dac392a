from afterfit.pages import model_card


def test_the_card_says_what_was_learnt_and_hides_what_is_private(bundle):
    card = model_card.render(bundle)
    assert "Predicts `late` (classification)" in card
    assert "| carrier | category | AA, BB, CC |" in card
    assert "| secret | category | private |" in card
    assert "x7" not in card
    assert "| seats | integer | 5" in card
    assert bundle.digest in card


def test_odd_names_do_not_break_the_cards_table():
    assert model_card._cell("a|b\n`c` <d>") == "a\\|b 'c' &lt;d>"
    assert model_card._number(None) == model_card._number(float("nan")) == "not defined"
