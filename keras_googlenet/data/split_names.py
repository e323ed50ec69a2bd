"""What people and tools call the splits of a data set."""

import re
import unicodedata

_SPLIT_WORDS = {
    "train": "train(ings?|s|val|er)?|trn|learn(ing)?|lern|entrenamiento|entra[iî]nement|"
    "apprentissage|trein(o|amento)|addestramento|tr[äe]ning(owy|owe|owa)?|trénovací|trenovaci|"
    "e[ğg]itim|latih|pelatihan|huấn ?luyện|huan ?luyen|обучение|обучающ(ая|ий|ие)|тренировка|"
    "тренировочн(ая|ый|ые)|навчання|εκπαίδευση|训练|訓練|培训|学習|トレーニング|훈련|학습|트레이닝|تدريب",
    "validation": "val(id|idation|idate|idating|idierung|idering|idaci[oó]n|ida[cç][aã]o|"
    "idazione|idatie|idasi|idační|idacni|i)?s?|walidac(ja|yjny|yjne|yjna)|"
    "dev(el|elopment)?|eval(uation|uate)?|hold ?out|cv|cross ?validation|do[ğg]rulama|"
    "xác ?thực|thẩm ?định|валидаци(я|онная|онный)|валідація|проверочная|επικύρωση|"
    "验证|驗證|検証|バリデーション|검증|تحقق",
    "test": "test(ing|s|e|en|owy|owe|owa|ovací|ovaci)?|tst|pr(ü|ue)f|pruebas?|collaudo|uji|"
    "pengujian|kiểm ?tra|kiểm ?thử|kiem ?tra|тест(ов(ая|ый|ые)|ирование)?|δοκιμή|"
    "测试|測試|テスト|시험|테스트|اختبار",
}
_NO_CLASS = "imag(e|es|en)|imgs?|pictures?|pics?|photos?|frames|jpe?g|png"
# What may stand around them. None is made of others: a regular expression would try both ways at
# each place of a long name.
_FILLERS = (
    f"{_NO_CLASS}|"
    "the|my|all|data|sets?|folders?|dir|splits?|subset|partition|parts?|files|"
    "samples?|new|final|orig|original|resized|cropped|clean|raw|full|small|mini|tiny|seg|cls|"
    "clsloc|classification|ilsvrc|rgb|x|v|seen|unseen|"
    "daten|satz|bilder|menge|de|datos|dados|dane|donnees|données|conjunto|imagenes|"
    "imágenes|imagens|immagini|zbiór|zbior|zdjęcia|obrazy|veri(si|leri)?|seti|kümesi|gambar|"
    "citra|ảnh|dữ ?liệu|данные|выборка|набор|изображения|"
    "集|组|数据|數據|图片|图像|圖片|データ|セット|用|画像|데이터|세트|셋|용|이미지"
)
# Beside the images of a segmentation or detection, or where nobody knows the classes.
_BESIDE_IMAGES = "masks?|labels?|annotations?|segmentations?|groundtruth|unknown|unlabell?ed|none"


def split_named(name: str) -> str | None:
    """Tells which split a folder or split is by its name: "train", "validation", "test" or none.

    Letters of their own say nothing: `trainA`, `test_B`.

    Example:
    >>> [split_named(name) for name in ("Training", "valid", "test_images", "trainspotting")]
    ['train', 'validation', 'test', None]
    """
    text = _joined(name)
    for split, words in _SPLIT_WORDS.items():
        if re.fullmatch(f"({_FILLERS})*({words})({_FILLERS})*", text):
            return split
    return None


def names_no_class(name: str) -> bool:
    """Tells whether a folder's name says that images are in it, but not of which class.

    Example:
    >>> [name for name in ("images", "Unknown", "new_images", "cat", "7") if names_no_class(name)]
    ['images', 'Unknown', 'new_images']
    """
    words = f"{_FILLERS}|{_BESIDE_IMAGES}"
    return bool(re.fullmatch(f"({words})+", _joined(name)) or split_named(name))


def names_images_or_masks(name: str) -> bool:
    """Tells whether a name can hardly be that of a class, whatever stands beside it.

    Example:
    >>> [name for name in ("images", "masks", "raw", "full") if names_images_or_masks(name)]
    ['images', 'masks']
    """
    return bool(re.fullmatch(f"({_NO_CLASS}|{_BESIDE_IMAGES})+", _joined(name)))


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


def loose(name: str) -> str:
    """Returns a name without what copies of it differ by: case, blanks, `_` and `-`.

    Example:
    >>> loose("Natural-Images") == loose("natural_images ")
    True
    """
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFC", name).casefold())


def _words(name: str) -> list[str]:
    """Splits a name at digits, signs and humps: `ILSVRC2012_img_train` has three words."""
    humps = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name))
    lower = humps.casefold().replace("\u0307", "")  # the dot of a Turkish capital I
    return re.findall(r"[^\W\d_]+", lower)


def _joined(name: str) -> str:
    return "".join(word for word in _words(name) if len(word) > 1)
