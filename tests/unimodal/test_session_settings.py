"""What a person types beside words: settings, images to be shown, and mistakes."""

from terminal_cases import feed, sample_image
from terminal_cases import session as session


def test_seed_and_guidance(session, capsys):
    feed(session, "/seed 12", "/guidance 2.5", "/seed", "/guidance")
    assert session.chat.sampling.seed == 12
    assert session.chat.sampling.guidance == 2.5
    assert capsys.readouterr().err == "seed 12\nguidance 2.5\n" * 2
    feed(session, "/seed twelve", "/guidance x", "/seed -1", "/guidance nan")
    errors = capsys.readouterr().err
    assert errors.count("error: ") == 4
    assert "error: /seed -1: a whole number below 2^64 is wanted\n" in errors
    assert "error: /guidance nan: a number from 0 to 1000 is wanted\n" in errors
    assert "'twelve' is no number here: write for example /seed 7" in errors
    assert session.chat.sampling.seed == 12


def test_words_to_lead_away_from_and_steps(session, capsys):
    feed(session, "/negative blue stars", "/guidance 2", "/negative blue stars", "/guidance 1")
    assert session.chat.sampling.negative == "blue stars", "the second time: there is guidance"
    errors = capsys.readouterr().err
    assert errors.count("error: /negative 'blue stars': words, and a guidance other") == 2
    assert "negative: blue stars\n" in errors
    feed(session, "/negative", "/guidance 1", "/steps", "/steps 4", "/steps x")
    assert session.chat.sampling.negative is None and session.chat.sampling.image_steps is None
    errors = capsys.readouterr().err
    assert "negative: nothing\n" in errors and "steps of the model\n" in errors
    assert "error: /steps 4: the image head next_code has none; leave it out\n" in errors
    assert "'x' is no number here" in errors


def test_a_given_image_goes_with_the_next_message(session, tmp_path, capsys):
    path = tmp_path / "my image.png"
    sample_image().convert("L").save(path)
    quoted = str(path).replace(" ", "\\ ")
    feed(session, f"/image {path}", f"/image '{path}'", f"/image {quoted}")
    assert len(session.given) == 3
    assert capsys.readouterr().err.count("grey converted to RGB") == 3
    feed(session, "what is this?")
    assert session.given == []
    roles = [(part.role, type(part).__name__) for part in session.chat.document.parts[:4]]
    assert roles == [("user", "Image")] * 3 + [("user", "Text")]


def test_mistakes_are_answered_with_the_way_out(session, tmp_path, capsys):
    path = tmp_path / "a.png"
    sample_image().save(path)
    cases = {
        "/imgae x.png": "there is no command /imgae: did you mean /image?",
        "/zzzz": "there is no command /zzzz: /help lists the commands",
        str(path): f"to show an image, write /image {path}",
        "/image": "name a path, such as /image photo.png",
        "/image none.png": "there is no file none.png",
        "/save": "there is nothing to save yet",
    }
    for line, words in cases.items():
        feed(session, line)
        assert words in capsys.readouterr().err
    feed(session, "   ")
    assert session.chat.document.parts == ()


def test_new_forgets_the_conversation_and_waiting_images(session, tmp_path):
    sample_image().save(tmp_path / "a.png")
    feed(session, "draw", f"/image {tmp_path / 'a.png'}", "/new")
    assert session.chat.document.parts == ()
    assert session.given == []


def test_image_without_a_path_forgets_the_images(session, tmp_path, capsys):
    sample_image((100, 50)).save(tmp_path / "a.png")
    feed(session, f"/image {tmp_path / 'a.png'}", "/image", "/image")
    assert session.given == []
    errors = capsys.readouterr().err
    assert "no image will go with your next message" in errors and "name a path" in errors


def test_paths_that_are_none_lose_nothing(session, tmp_path, capsys):
    (session.output / "draw-seed-0.png").mkdir(parents=True)
    feed(session, "draw", "/save ~nosuchuser/x", '/image "abc', "/guidance 1e38", "/guidance 0")
    errors = capsys.readouterr().err
    assert errors.count("is no path") == 2 and "guidance 1e+38" in errors
    assert "guidance 0" in errors
    assert len(session.chat.document.turns()) == 2
