"""What people and tools call the splits of a data set."""

import re
import unicodedata

_SPLIT_WORDS = {
    "train": "train(ing|s|val)?|trn|learn(ing)?|entrenamiento|entra[iî]nement|apprentissage|"
    "trein(o|amento)|addestramento|训练|訓練|学習",
    "validation": "val(id|idation|idate|idating|idierung|idaci[oó]n|ida[cç][aã]o|idazione|i)?s?|"
    "dev(el|elopment)?|eval(uation|uate)?|hold ?out|cv|cross ?validation|验证|検証",
    "test": "test(ing|s|e|en)?|tst|prueba|测试|テスト",
}
_FILLERS = (  # what may stand around them
    "the|my|all|data|datas?ets?|sets?|imag(e|es|en)|imgs?|pictures?|pics?|photos?|frames|folders?|"
    "dir|splits?|subset|partition|parts?|files|samples?|new|final|orig|original|resized|cropped|"
    "clean|raw|full|small|mini|tiny|seg|cls|clsloc|classification|ilsvrc|jpe?g|png|rgb|x|v|集"
)


def split_named(name: str) -> str | None:
    """Tells which split a folder or split is by its name: "train", "validation", "test" or none.

    Example:
    >>> [split_named(name) for name in ("Training", "valid", "test_images", "trainspotting")]
    ['train', 'validation', 'test', None]
    """
    for split, words in _SPLIT_WORDS.items():
        if re.fullmatch(f"({_FILLERS})*({words})({_FILLERS})*", "".join(_words(name))):
            return split
    return None


def splits_by_common_words(names: list[str]) -> dict[str, str]:
    """Tells splits whose names have their other words in common.

    Example:
    >>> splits_by_common_words(["flowers_train", "flowers_val", "trees"])
    {'flowers_train': 'train', 'flowers_val': 'validation'}
    """
    groups = {}
    for name in names:
        words = _words(name)
        kinds = [split_named(word) if len(word) > 1 else None for word in words]
        if sum(kind is not None for kind in kinds) == 1:
            (place,) = (place for place, kind in enumerate(kinds) if kind)
            rest = (*words[:place], *words[place + 1 :])
            groups.setdefault(rest, {})[name] = kinds[place]
    return {
        name: kind
        for group in groups.values()
        if len(set(group.values())) > 1
        for name, kind in group.items()
    }


def _words(name: str) -> list[str]:
    """Splits a name at digits, signs and humps: `ILSVRC2012_img_train` has three words."""
    humps = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFC", name))
    return re.findall(r"[^\W\d_]+", humps.casefold())
