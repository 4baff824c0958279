"""Requests in other languages, which the model does not speak and says so.

In: a generator. Out: a request or a greeting in another language. Every fifth language (index % 5
== 0) is held out of training.
"""

import numpy as np

from .wording import pick

NOT_ENGLISH = "i only know english: ask me to draw a red circle."
LANGUAGES: tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    # sentences with {0} for a noun; nouns; whole sentences. Dutch
    (
        ("teken {0}", "ik wil {0} zien", "kun je {0} tekenen?", "maak {0}", "geef mij {0}"),
        ("een rode cirkel", "een blauw vierkant", "twee groene sterren", "een geel hart"),
        ("hallo, hoe gaat het?", "wie ben je?", "dank je wel", "wat zie je?"),
    ),
    # German
    (
        ("zeichne {0}", "male {0}", "ich möchte {0}", "kannst du {0} zeichnen?", "bitte {0}",
         "mach mir {0}", "zeig mir {0}", "wie viele sind {0}?"),
        ("einen roten kreis", "ein blaues quadrat", "zwei grüne sterne", "ein gelbes herz",
         "ein dreieck", "einen schwarzen ring", "eine katze", "ein kleines kreuz", "drei kreise"),
        ("guten tag", "wer bist du?", "danke schön", "was siehst du?", "was kannst du?",
         "mach es blau", "wie geht es dir?", "auf wiedersehen", "sprichst du deutsch?"),
    ),
    # French
    (
        ("dessine {0}", "je voudrais {0}", "peux-tu dessiner {0} ?", "montre-moi {0}", "fais {0}",
         "dessine-moi {0}", "peins {0}", "il me faut {0}"),
        ("un cercle rouge", "un carré bleu", "deux étoiles vertes", "un coeur jaune", "un triangle",
         "un anneau noir", "un chat", "une petite croix", "trois ronds roses"),
        ("bonjour", "qui es-tu ?", "merci beaucoup", "qu'est-ce que tu vois ?", "au revoir",
         "rends-le bleu", "comment ça va ?", "parles-tu français ?", "que sais-tu faire ?"),
    ),
    # Spanish
    (
        ("dibuja {0}", "quiero {0}", "¿puedes dibujar {0}?", "muéstrame {0}", "haz {0}",
         "pinta {0}", "me gustaría {0}", "por favor, {0}"),
        ("un círculo rojo", "un cuadrado azul", "dos estrellas verdes", "un corazón amarillo",
         "un triángulo", "un anillo negro", "un gato", "una cruz pequeña", "tres círculos"),
        ("hola", "¿quién eres?", "muchas gracias", "¿qué ves?", "adiós", "hazlo azul",
         "¿cómo estás?", "¿hablas español?", "¿cuántos hay?"),
    ),
    # Italian
    (
        ("disegna {0}", "vorrei {0}", "puoi disegnare {0}?", "mostrami {0}", "fammi {0}",
         "dipingi {0}"),
        ("un cerchio rosso", "un quadrato blu", "due stelle verdi", "un cuore giallo",
         "un triangolo", "un anello nero", "un gatto", "tre cerchi"),
        ("buongiorno", "chi sei?", "grazie mille", "cosa vedi?", "arrivederci", "fallo blu",
         "come stai?", "parli italiano?"),
    ),
    # Korean
    (
        ("{0} 그려줘", "{0} 그려 주세요", "{0} 보여줘"),
        ("빨간 원", "파란 사각형", "노란 하트", "고양이"),
        ("안녕하세요", "누구세요?", "감사합니다", "뭐가 보여?"),
    ),
    # Portuguese
    (
        ("desenha {0}", "quero {0}", "podes desenhar {0}?", "mostra-me {0}", "faz {0}"),
        ("um círculo vermelho", "um quadrado azul", "duas estrelas verdes", "um coração amarelo",
         "um gato", "três círculos"),
        ("olá", "quem és tu?", "obrigado", "o que vês?", "até logo", "falas português?"),
    ),
    # Polish
    (
        ("narysuj {0}", "chcę {0}", "pokaż mi {0}", "czy możesz narysować {0}?"),
        ("czerwone koło", "niebieski kwadrat", "dwie zielone gwiazdy", "żółte serce", "kota"),
        ("dzień dobry", "kim jesteś?", "dziękuję", "co widzisz?", "do widzenia"),
    ),
    # Chinese
    (
        ("画{0}", "请画{0}", "我想要{0}", "给我看{0}", "能画{0}吗?"),
        ("一个红色的圆", "一个蓝色的正方形", "两颗绿色的星星", "一颗黄色的心", "一只猫", "三个圆"),
        ("你好", "你是谁?", "谢谢", "你看到什么?", "再见", "把它变成蓝色"),
    ),
    # Arabic
    (
        ("ارسم {0}", "أريد {0}", "أرني {0}", "هل يمكنك رسم {0}؟"),
        ("دائرة حمراء", "مربعا أزرق", "نجمتين خضراوين", "قلبا أصفر", "قطة"),
        ("مرحبا", "من أنت؟", "شكرا", "ماذا ترى؟", "مع السلامة"),
    ),
    # Swedish
    (
        ("rita {0}", "jag vill ha {0}", "kan du rita {0}?", "visa mig {0}"),
        ("en röd cirkel", "en blå fyrkant", "två gröna stjärnor", "ett gult hjärta", "en katt"),
        ("hej, hur mår du?", "vem är du?", "tack så mycket", "vad ser du?"),
    ),
    # Russian
    (
        ("нарисуй {0}", "я хочу {0}", "покажи мне {0}", "ты можешь нарисовать {0}?"),
        ("красный круг", "синий квадрат", "две зелёные звезды", "жёлтое сердце", "кошку"),
        ("привет", "кто ты?", "спасибо", "что ты видишь?", "до свидания"),
    ),
    # Japanese
    (
        ("{0}を描いて", "{0}を描いてください", "{0}が見たい"),
        ("赤い丸", "青い四角", "緑の星を二つ", "黄色いハート", "猫"),
        ("こんにちは", "あなたは誰?", "ありがとう", "何が見えますか?"),
    ),
    # Turkish
    (
        ("{0} çiz", "{0} istiyorum", "{0} çizebilir misin?", "bana {0} göster"),
        ("kırmızı bir daire", "mavi bir kare", "iki yeşil yıldız", "sarı bir kalp", "bir kedi"),
        ("merhaba", "sen kimsin?", "teşekkürler", "ne görüyorsun?"),
    ),
)  # fmt: skip


def foreign(rng: np.random.Generator, held_out: bool = False) -> str:
    """Draw a request or a greeting in another language."""
    able = [one for k, one in enumerate(LANGUAGES) if (k % 5 == 0) == held_out]
    sentences, nouns, whole = pick(rng, able)
    if rng.random() < 0.3:
        return pick(rng, whole)
    return pick(rng, sentences).format(pick(rng, nouns))
