"""The words by which a reply names its answer, in English, Kazakh, Russian and Chinese (and the word for "answer" in more).

Owns patterns only; `verdict.py` says what they mean. Invariant: all repetitions are bounded, or over characters that nothing
beside them matches, so that no text takes longer than its length. `re` compiles a pattern on its first use and keeps it: an answer
from memory needs none.
"""

from __future__ import annotations

OWN, OTHER = "\x02", "\x03"  # stand behind a letter for the text of its own option, or of another one

_CJK = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
WORD = rf"[^\W{_CJK}]"  # a character of a word, in a script that writes spaces between words
UPPER = "A-ZА-ЯІ"
END = r"(?:$|\n)"
_BECAUSE = r"(?i:(?:because|since|as|for|due|өйткені|себебі|потому|так как|поскольку)\b|因为)"


def _any(words: str, more: str = "") -> str:
    """A pattern for whole words, separated by "|"; `more` are words of scripts without spaces."""
    return rf"(?:(?<!\w)(?:{words})(?!\w){'|' + more if more else ''})"


# A letter that stands alone; group 2 is the mark behind it. Not "A-level", "A's", "C++", "D.C." or "T = 2".
LETTER = rf"(?<!{WORD})(?<!{WORD}')(?<!{WORD}\.)([{UPPER}])(?!{WORD}|[+#]|'\w|\.\w\.|\s?=(?!\x20*\d)|[-‑][a-zA-Z])([{OWN}{OTHER}]?)"
SMALL_LETTER = rf"(?<![\w'])([a-z])(?=[)\]}}.]{{0,2}}[^\S\n]{{0,3}}{END})()"
SMALL_LABEL = r"(?<!\w)[a-zа-яі][).:\]]"
AND = (
    r"[\s)\]}(\[{]{0,4}(?:[,/&+|→、،;]|[=-]>|\b(?:and|or|und|oder|и|или|және|мен|бен|немесе|әлде|да|де|либо|яки|(?<=\s)не(?=\s))\b"
    r"|还是|或者|以及|[和或与及])"
    r"(?:\s?(?:and|or|и|или|және|немесе)\b)?(?:\s(?:вс[её] же|даже|perhaps|maybe|possibly|rather)\b)?[\s,(\[{]{0,4}"
)
CLAUSE = r"\s+(?:is|are|was|were|would|has|have|does|do|fails?)\b"
NEW_CLAUSE = rf"{LETTER}(?:{AND}{LETTER}){{0,5}}{CLAUSE}"
# А, Б, В, Г: a list in which В is the third.
CYRILLIC_LABEL = r"(?m)(?:^|[\s(])[БГДЖЗИЛ][).:]|^\W{0,4}[БГДЖЗИЛ]\W{0,4}$"

NOUN = r"(?:нұсқа\w{0,8}|жауа[пб]\w{0,8}|вариант\w{0,4}|ответ\w{0,3}|әрпі\w{0,4}|option|answer|choice|选项|项)"  # behind a letter
_FOREIGN = (
    r"antwort|antwoord|respuesta|r[ée]ponse|resposta|risposta|odpowied[źz]|jawaban(?:nya)?|đáp án|cevap|cevab[ıi]|cavab|yanıt"
    r"|javob\w{0,3}|jogap"
    r"|жавоб\w{0,3}|җавап\w{0,4}|яуап\w{0,4}|жооп\w{0,4}|ҷавоб\w{0,2}|відповідь|адказ|хариулт|պատասխան|პასუხი"
)
_FOREIGN_RIGHT = (
    r"correct[ae]|corret[ao]|corrett[ao]|juste|bonne|richtige|juiste|poprawna|prawidłowa|(?:yang )?(?:benar|tepat)|đúng|doğru"
    r"|düzgün|dogry|to'g'ri"
    r"|тўғри|дөрес|дөрөҫ|туура|дуруст|правильна|зөв"
)
_ANSWER = _any(
    r"answer|ans\.?|response|verdict|solution|correction|edit|revision|вердикт|жауа[пб](?!тар)\w{0,8}|ja[uw]a[pb]\w{0,6}"
    r"|шешім\w{0,2}|түзету|таңдауым"
    r"|выбор|ответ(?:ом|а)?|решение|исправление"
    rf"|{_FOREIGN}",
    "答案|正解|答え|정답|해답|답",
)
_OPTION = _any(
    "option|choice|letter|one|match|fit|winner|таңдау|pick|guess|vote|selection|нұсқа(?!лар)\\w{0,8}|вариант(?!ы)\\w{0,4}|буква|значение",
    "选项|选择",
)
_RIGHT = _any(
    r"correct|right|best|closest|nearest|true|final|my|selected|chosen|most (?:appropriate|likely|accurate|suitable)"
    r"|дұрыс\w{0,2}|тура|ең дұрыс|ең жақын\w{0,2}|соңғы|менің|таңдалған|d[uū]r[yı]s"
    r"|правильн\w{1,3}|верно|верн\w{1,3}|мой|окончательн\w{1,3}|итогов\w{1,3}|выбранн\w{1,3}|ближайш\w{1,3}|наиболее близк\w{1,3}"
    rf"|ближе всего|{_FOREIGN_RIGHT}",
    "正确的?|最佳|最终|最接近的?",
)
_WRONG = _any(
    r"incorrect|wrong|false|untrue|a mistake|mistaken|a trap|ошибк\w{1,3}|дұрыс емес|қате\w{0,2}|бұрыс|жарамайды|сәйкес келмейді"
    r"|невер(?:ен|н\w{1,3})|неправил(?:ен|ьн\w{1,3})|ошибочн\w{1,3}|не подходит",
    "错误?|不正确|不对|不符合",
)
_IS = (
    "(?:[:：=→\\-–—>]|"
    + _any(
        "is|are|was|be|would be|should be|must be|will be|has to be|seems to be|appears to be"
        "|является|будет|это|болады|болып табылады|ist|es|est"
    )
    + "|[是为為选選])"
)
_NOT = _any(
    "not|no|never|neither|nor|none|cannot|can'?t|isn'?t|wasn'?t|won'?t|couldn'?t|wouldn'?t|except|without"
    r"|емес|жоқ|ешқайсы\w{0,3}|не|нет|ни",
    "不|非|没|無|无",
)
_FILLER = _any(
    "is|are|was|be|to|would|should|must|will|can|only|has|seems?|appears?|likely|probably|definitely|clearly|certainly|obviously|therefore"
    "|thus|hence|then|simply|indeed|actually|the|that|of|for|this|here|question|above|given|given by|following|multiple|letter"
    "|option|choice"
    "|answer|correct|right|best|final|as|with|under|number|marked|labell?ed|i (?:think|believe|would say)|it's|that's|it|so|most"
    r"|вариант\w{0,4}|ответ\w{0,3}|букв\w{1,3}|под|на|вопрос|только|этот|данный|является|это|будет|правильн\w{1,3}|верн\w{1,3}"
    r"|нұсқа\w{0,8}|жауа[пб]\w{0,8}|әріп\w{0,4}|әрпі\w{0,4}|ретінде|мына|бұл|осы|сұра[қғ]\w{0,5}|тест\w{0,5}|дұрыс\w{0,2}|болып"
    r"|табылады|болады",
    "本题|应该|应|该|就|的|是|为|選|选|项|选项|正确",
)
_BETWEEN = r"[^\S\n]|[:：=→>\-–—,\"“”«»(\[{'【】「」《》]"
_GAP = rf"(?:{_BETWEEN}){{0,8}}"
_LAST_GAP = rf"(?:{_BETWEEN}|\n){{0,10}}"
_CHOOSE = _any(
    "i(?:'d|'ll| would| will| must)? (?:choose|select|pick|go (?:with|for)|opt for|take|vote for|say|answer|guess)"
    "|i'm choosing|let's say|отвечаю|(?:we|you should) (?:choose|select|pick)"
    "|(?:go|going|goes) with|going for|голосую за|останавливаюсь на|выбираю|выбираем|выбрал[аи]?|я выберу|выбрать|я бы выбрал[аи]?",
    "(?:故|应|本题|所以|因此|我)选择?|(?<![不未没])选择|(?<![选挑不未没])选(?!项)",
)
_IT = _any(
    "(?<!to )(?<!of )(?<!with )(?<!than )(?<!from )(?<!like )"
    "(?:it|this|that)(?: must| has to| should| can only| would| will)? (?:be|is)|it's|that's|must be|has to be"
    "|(?:лучше всего |больше всего )?(?:подходит|верен|верна|правилен)|оста[её]тся(?: только)?"
    "|leav(?:es|ing)(?: only| us with| just)?|corresponds to|matches(?: with)?|which is(?= (?:option|choice|letter|answer|the))|это|бұл"
)
_SO = _any(
    r"(?:so|therefore|thus|hence),? the \w{1,20}(?: \w{1,20}){0,2} is"
    r"|so(?! (?:is|are|do|does)\b)|therefore|thus|hence|consequently|definitely|certainly|clearly|obviously|probably|(?:most )?likely|final"
    "|in conclusion|i (?:think|believe)"
    r"|(?:conclusion|result|outcome|вывод|итого?|результат|нәтиже\w{0,2}|қорытынды\w{0,2})(?=\s?[:–—-])"
    r"|меніңше|ойымша|әрине|демек|сондықтан|сонымен|қорытынды\w{0,2}"
    "|думаю|считаю|полагаю|безусловно|по-моему|скорее всего|конечно|итак|значит|поэтому|следовательно|таким образом",
    "所以|因此|综上|故|我认为|我觉得|结论|结果",
)
_ARROW = rf"(?-i:(?<=[a-zа-яіңғүұқөһә]{{2}}[^\S\n])(?:[=-]>|[→⇒∴])(?=[^\w\n]{{0,4}}[{UPPER}](?!\w)))"  # "even → B", not "A → B"

# Ends where the letter, or the text of an option, begins. Groups: `low` (the wrong answer is), `no` (the answer is not), `start`
# (counts only at the start of a line), `it` and `so` (count only if the letter ends its clause).
CUE = (
    rf"(?i)(?:(?<!\w)(?=\w\w|i\b)|(?=[{_CJK}])|(?<=\w[^\S\n])(?=[→⇒∴]|[=-]>))(?P<low>{_WRONG}[^\S\n])?(?:"
    rf"{_RIGHT}\s?(?:{_RIGHT}\s?)?(?:{_ANSWER}|{_OPTION})"  # the correct answer
    rf"|{_RIGHT}\s?(?=[:–—-]|(?:is|это|является|будет)\b|是)"  # correct: B
    rf"|{_RIGHT}[^\S\n](?=[{UPPER}](?:\s?{NOUN})?[).]?\s*{END})"  # correct B
    rf"|{_OPTION}(?=\s(?:is|would be|must be|should be)\s)"  # the option is
    rf"|(?:{_FOREIGN})\s(?:{_FOREIGN_RIGHT})(?=\s?[:：]|\s(?:is|es|est|è|é|adalah|là)\s)"  # respuesta correcta: B
    rf"|{_ANSWER}(?={_GAP}(?:{_FILLER}{_GAP}){{0,4}}(?:{_IS}|{_NOT}))"  # the answer to this question is
    rf"|{_ANSWER}\s(?=[{UPPER}](?:{OWN}|\s?{NOUN}\s(?:болып табылады|болады)))"  # answer B) 19
    rf"|(?:жауа[пб]\w{{0,8}}|ответ)\s(?=[{UPPER}]\s?[.!]?\s?{END})"
    rf"|(?P<start>{_ANSWER}|{_OPTION}(?=\s?[:：])|(?:choose|pick|select|таңдаңыз|выберите)(?!\w))|{_CHOOSE}|(?P<it>{_IT})"
    rf"|(?P<so>{_SO}|{_ARROW}))"
    rf"(?:{_GAP}(?:(?P<no>{_NOT})|{_IS}|{_FILLER})){{0,8}}{_LAST_GAP}"
)
ANSWER = rf"(?i){_ANSWER}"
REFUSED = rf"(?i:[)\]]?(?:\s?-?{NOUN})?\s(?:емес|жоқ)\b|-?[дтн][ае]н басқа\w{{0,6}})"  # behind a letter: A емес
CONTRAST = rf"(?i)(?:\s?[,，]\s?|\s)(?:(?:but|but rather|rather|а|ал|it is|it's)\s|而是?)?(?=[{UPPER}])"  # not A, but B
ENDS = rf"[{OWN})\]]{{0,3}}(?:\s?(?i:{NOUN}))?[\s)\]]*?(?:[.,;!。，)]|{END}|{_BECAUSE})"
CLAUSE_ENDS = rf"[)\]]?(?:[.,;!。]|{END})"
TEXT_ENDS = rf"(?=[)\]'%]{{0,2}}\s{{0,2}}(?:[.,;:!()\]。，；–—-]|{END}|{_BECAUSE}|болып\b))"

_HIGH = _any(
    rf"correct|right|true|fits?(?=\W{{0,3}}{END})|дұрыс(?:ы|тығы)?|верно|верен|правилен|верн\w{{1,3}}|правильн\w{{1,3}}|подходит",
    "正确|对(?:的|(?![\u3400-\u9fff]))|符合|✅|✓|✔",
)
_CHOSEN = _any(
    r"(?:the |my )?(?:(?:only |final )?(?:correct |right |best |final )?(?:answer|option|choice)(?!\s\w(?!\w))|correct one"
    r"|right one|best one"
    "|best (?:fit|match)|better (?:answer|option|choice)|most (?:accurate|likely|appropriate|suitable)"
    rf"|one(?=\W{{0,3}}{END})|fits best|it is(?=\W{{0,3}}{END}))"
    r"|дұрыс (?:жауа[пб]\w{0,4}|нұсқа\w{0,4})|таңда(?:ймын|ймыз|дым|лды)|(?:ойла|сана|есепте)й?ймын|жауап (?:болады|болып табылады)"
    r"|(?:правильн|верн)\w{1,3} (?:ответ\w{0,2}|вариант\w{0,2})",
    "(?:正确|最佳)的?(?:答案|选项)",
)
_LABELS = r"\s(?:answers?|options?|choices?|ones?|жауа|нұсқа|ответ|вариант)"  # begin a clause of their own: "B. Wrong options: A"
# What is said behind a letter. Groups: `low` (is wrong), `high` (is correct), `chosen` (is the answer), `no` and `after` (not).
JUDGED = (
    rf"(?i)[)\]]?(?:-(?:ны|ні|ды|ді|ты|ті))?[^\S\n]?(?:[-–—]\s?)?(?:{NOUN}\s?(?:[-–—]\s?)?)?"
    r"[也都均]?(?:(?:is|are|was|would be|must be|seems|looks|appears|это|является|болып|деп)(?!\w)\s?|[是为])?"
    rf"(?P<no>not\s|n't\s|не\s|不是?)?(?:the\s)?(?:(?P<low>{_WRONG})|(?P<chosen>{_CHOSEN})|(?P<high>{_HIGH}))(?P<after>\s(?:емес|жоқ)\b)?"
    rf"|[.:]\s?(?:(?P<low2>{_WRONG})(?!{_LABELS}|\s?[:：])|(?P<high2>{_HIGH})(?!\s(?:емес|жоқ)|{_LABELS}))"
)
NOT_BEFORE = r"(?i)(?:\b(?:not|nor|neither|none|never|non|ни|не)|n't|不|非)\W{0,3}(?:options?\W|choice\W)?$"
TICKED = r"[✅✓✔☑]\ufe0f?[^\S\n]?\Z"

_NO = r"(?:^|[.!?…\n])\s{0,3}(?:no|жоқ|нет)\b\s?[,.:!…–—-]"  # as a sentence: "no" and "жоқ" have other meanings inside of one
CORRECTED = (
    r"(?i)\b(?:wait|correction|correct (?:this|that|my|myself)|sorry|revis\w{1,5}|mistake|reconsider\w{0,3}|кешіріңіз|қателес\w{1,6}"
    rf"|түзет\w{{1,6}}|ошиб\w{{1,4}}|извини\w{{0,4}}|исправ\w{{1,6}}|точнее)\b|不对|等等|更正|抱歉|{_NO}"
)
TAKEN_BACK = (
    rf"(?i)\b(?:i take (?:that|it) back|alternatively|on (?:reflection|second thoughts?)|wait|hmm|oops|sorry|correction|actually"
    rf"|кешіріңіз|стоп|извини\w{{0,4}})\b\s?[,.:!…–—-]|不对"
    rf"|等等|更正|抱歉|{_NO}"
)
RIVAL = (  # another letter that the reply also allows
    rf"(?i:\b(?:possibly|perhaps|maybe|(?:could|might|may) (?:also )?be|(?:before|after) (?:it|that|this),?|but also|as well as"
    rf"|но и|но также(?: и)?|возможно,?|может быть,?"
    rf"|мүмкін,?)"
    rf"\s(?:option\s)?|可能是?|也是?|\(not\s){LETTER}"
    rf"|{LETTER}(?i:(?:\s{NOUN})?(?:\s(?:is|are))?\s(?:also|too|equally|just as|тоже|также|да)"
    r"\s(?:a\s|an\s|is\s)?(?:acceptable|correct|right|possible|valid|plausible|true|good|likely|верн|подход|правильн|возмож|дұрыс"
    r"|мүмкін|болады)"
    r"|也(?:是)?(?:对|正确|可|行|有可能))"
    rf"|(?i:\b(?:and|while|but|а|ал|и|және)\s){LETTER}(?i:\s(?:for|if|when)\b)"
)
OR_ELSE = rf"[^.!?\n,;:。，]{{0,40}}?(?<![{UPPER}])(?i:\s(?:or|или|немесе|либо|әлде)\s(?:option\s)?|或者?){LETTER}"  # B is correct or C
CONCLUDED = (
    rf"(?i)(?:{_SO}|"
    + _any(r"but|however|final\w{0,2}|overall|бірақ|дегенмен|но|однако|окончательн\w{1,3}|итог\w{0,3}", "最终")
    + r")[^.!?\n。]{0,40}$"
)
NEGATED_STEM = (
    r"(?i)\b(?:not|except|incorrect|false|wrong|least|never|untrue|unlikely|емес|қате|бұрыс|не|нет|нельзя|кроме|ошибочн\w+|неверн\w+"
    r"|неправильн\w+|ложн\w+)\b|n't\b|\w[бпм][ае]йт[а-яіңғүұқөһә]*|[不错非除没無无]"
)
REASON = rf"[).,:;。，–—-]?\s{{0,3}}{_BECAUSE}"
RATHER = rf"(?i)[{OWN}]?[).,]?\s?(?:not|rather than|instead of|а не)\s(?:option\s)?[{UPPER}](?:{AND}[{UPPER}]){{0,5}}\W{{0,3}}$"
DOUBT = (
    r"(?i)\b(?:no|not|never|wrong|incorrect|false|too|less|more|than|but|however|unlike\w{0,2}|fail\w{0,3}|exclud\w{1,3}|eliminat\w{1,3}"
    r"|rul\w{1,3} out|neither|nor|or|only if|емес|жоқ|қате|бұрыс|тым|бірақ|не|нет|неверн\w+|неправильн\w+|слишком|но|или)\b"
    r"|n't\b|\w[бпм][ае]йді\b|[不错非没太但?？]"
)

TEXT_DOUBT = r"(?i)[?？]|\b(?:may|might|could|possibl[ey]|perhaps|was|were|until|once|former\w{0,2}|был[аи]?|до|болған|дейін)\b"
SENTENCE_DOUBT = (
    rf"{TEXT_DOUBT}|\b(?:oppos\w+|resembl\w+|similar|mistak\w+|before|after|that|which|if|maybe|suppose|unless|если|возможно|может"
    rf"|егер|мүмкін|невер\w+|неправ\w+|ошиб\w+|кроме|похож\w+"
    rf"|раньше|бұрын\w*)\b"
)
OBJECTED = r"(?i)[)]?(?:[,，]|。\s?[A-Z]也|[.;]\s(?:but|no|so|hence|it is|it's|however|бірақ|но|однако)\b)"
# Behind the letter at the start: "B, although A is close", "B. A and C are even".
CONCEDED = r"(?i)[)\s]{0,2},?\s(?:although|though|even though|even if|while|whereas|хотя|пусть)\b"
COMPARED = rf"[)\s]{{0,2}}(?:[.:;(。：；（]|[–—-]\s|[,，]?\s?{_BECAUSE}|,\s(?:as|since)\b)"
PRAISED = (
    r"(?i)[?？]|\b(?:better|best|also|might|may|could|maybe|perhaps|right|correct|true|possibl[ey]|probably|but|however|no|wait"
    r"|unless|or|if|both|only|then|see|vs|versus|like|plus|actually|thought|hmm|sorry|not (?:wrong|incorrect|bad)|answers?|too(?=\W)(?! \w)"
    r"|же|тоже|также|лучше|верн\w+|правильн\w+|может|но|или|нет|если"
    r"|дұрыс\w*|тағы|бірақ|немесе|мүмкін|жоқ|егер)\b|\s(?:да|де)\s|[也对吗或但更]|正确"
)
IS_LABEL = rf"[{OWN}{OTHER}]?[^\S\n]?[.):=：。–—-]\s{{0,2}}\w"
CUT_SHORT = r"(?i)[^\w\n]{1,5}(?:no|wait|hmm|actually|нет|жоқ|стоп)\W{0,4}$"
HEADING = rf"(?m)^[^\w\n❌✗✘]{{0,6}}(?i:(?:option|choice|вариант|нұсқа|选项)\s?)?([{UPPER}])()[^\w\n❌✗✘]{{0,6}}$"
IS_TEXT = rf"(?is)[^.!?\n]{{0,80}}(?:\b(?:is|это)\s(?:the\s)?|\s[–—-]\s|是)(?-i:([A-Z]){OWN})\W{{0,3}}$"  # "the largest one is B) 19"
_CONFIDENCE = r"(?:confidence|confident|certainty|probability|сенімділі[кг]\w{0,2}|уверенность|вероятность|置信度|信心)"
_DEGREE = r"(?:(?:very )?high|full|жоғары|высокая|高|\d{1,3}(?:[.,]\d{1,2})?\s?%?)"
CONFIDENCE = (  # behind a letter that is alone
    rf"(?:[\s,:|–—-]{{0,3}}[(\[]?(?:{_CONFIDENCE}[\s:：=-]{{1,3}}{_DEGREE}|{_DEGREE}\s{_CONFIDENCE}|\d{{1,3}}(?:[.,]\d{{1,2}})?\s?%)[)\]]?"
    r"|,\s(?:obviously|definitely|clearly|certainly|of course|for sure|final answer|конечно|безусловно|әрине))"
)
LONE = (
    r"(?i:(?:(?:options?|choice|letter|answer|вариант|нұсқа|буква|选项)(?!s\b))?\s{0,2}[:(]?)"
    rf"([A-Za-zА-ЯІ])([{OWN}{OTHER}]?)[).]?(?i:[\s-]?{NOUN})?(?i:{CONFIDENCE})?"
)
TEXT_AND_LETTER = rf"(.+?)[\s(\[,:–—-]{{1,4}}(?i:(?:option|choice|вариант|нұсқа)\s)?([{UPPER}])"
LEFT_EDGES = " \t'()[]<>.,:;!。，；•·→⇒∴👉✅✓✔☑➡#=|"
RIGHT_EDGES = " \t'()[]<>.,:;!。，；👍✅✓✔☑|–—"

_FOLLOWS = (  # words of the same script that may stand behind a letter; before others "A", "I", "В" or "С" is a word itself
    r"(?:because|since|as|is|are|was|were|may|might|could|seems|looks|appears|fits|matches|has|can|should|does|although|though|and"
    r"|or|but|which|due|for|with|given|while|whereas|not|rather|option|choice|answer|the|this|that|it|so|here|if"
    r"|explanation|reason|would|must|нұсқа\w*|дұрыс\w*|жауа[пб]\w*|болып|болады|деп|сондықтан|себебі|өйткені|яғни|екен\w*|себеп\w*|табылады"
    r"|таңда\w*|әрпі|және|бұл|емес|қате\w*|вариант\w*|правильн\w*|верн\w*|неверн\w*|не|является|потому|так|поскольку|это|и|или"
    r"|поэтому|ответ\w*"
    r"|подходит|түсіндір\w*|объяснение|пояснение)\b"
)
LATIN_WORD = rf"[^\S\n]+(?!(?i:{_FOLLOWS}))[A-Za-z]"
CYRILLIC_WORD = rf"[^\S\n]+(?!(?i:{_FOLLOWS}))[А-Яа-яІіӘәҢңҒғҮүҰұҚқӨөҺһ]"
NEXT_LABEL = rf"[{OWN}{OTHER}]?[).:][^\n]{{0,200}}\n[^\w\n]{{0,6}}([{UPPER}])[{OWN}{OTHER}]?[).:\s]"
# Option texts that were folded, one label behind the other: the options are only listed again.
LIST = (
    r"(?P<heading>(?i:(?<!\w)(?:options|choices|answers|варианты(?: ответ\w{1,3})?|нұсқалар\w{0,3}|жауаптар\w{0,3})\s?[:：]\s{0,3}\(?))?"
    rf"[A-Z]{OWN}(?:[^\w]{{1,8}}[A-Z]{OWN}){{0,25}}(?=[^\S\n]{{0,3}}[)\].,;:!]|[^\S\n]{{0,3}}{END})"
)
IN_BRACKETS = (  # 19 (B); 19, option B
    rf"(?i:\s?[(\[]\s?(?:(?:option|choice|вариант|нұсқа|选项)\s?)?)([{UPPER}])(?i:\s?{NOUN})?\s?[)\]]"
    rf"|,\s(?i:(?:i\.e\.|that is|яғни|то есть),?\s)?(?:(?i:option|choice|вариант)\s([{UPPER}])|([{UPPER}])\s(?i:нұсқасы))(?!\w)"
)
OPENING = (
    r"(?i)^\s{0,3}(?:sure|certainly|of course|okay|ok|great question|конечно|хорошо|әрине|жарайды|好的|当然)\s?[!,.:，。！]\s{0,4}(?=\S)"
)

# Begin what takes a verdict back: "A, no, B".
TURN = (
    r"no|wait|nope|hmm|oops|sorry|scratch|rather|i mean|i meant|correction|нет|хотя|точнее|вернее|стоп|простите|жоқ|дәлірек|қателес\w{1,6}"
)
SAME_LINE = rf"(?i)[^\n]{{0,200}}(?:\n{{1,3}}\W{{0,4}}(?:{TURN})\b[^\n]{{0,80}})?"  # with the next one, if that takes back
CLAUSE_OR_REFUSED = rf"(?:{CLAUSE}|{REFUSED})"
NOT_SUPPOSED = r"(?!\s(?:for|in|if|with|to|had|were|when|only)\b)"  # behind "would be the answer"
PREFERRED = (  # behind a letter: but B is better
    rf"(?i)[{OWN})]{{0,2}}\s(?:(?:is|was|seems|looks|would be)(?:\W{{0,3}}{END}|\s(?:the |a |actually |really )?(?:better|best"
    rf"|right|correct|more))"
    r"|лучше|вернее|дұрысырақ|жақсырақ)"
)
ANSWER_OR_OPTION = rf"(?i)(?:{_ANSWER}|{_OPTION})"
OWN_OR_LIST = f"{OWN}|\n…\n"
FOREIGN_ANSWER = rf"(?i)(?:{_FOREIGN})(?!\w)"
EXCLUDED = (  # before a letter: everything except B
    r"(?i)(?:\b(?:except(?: for)?|apart from|aside from|other than|besides|excluding|excepting|(?:all|every\w{0,5}|any\w{0,5}"
    r"|nothing|them|options) (?:but|save|bar)"
    r"|кроме|помимо|за исключением|исключая)|除了?)\W{0,3}(?:(?:options?|choice|варианта|ответа)\W)?$"
)
NEW_QUESTION = r"(?i)\n[^\w\n]{0,6}(?:next question|new question|question|q|сұрақ|вопрос|问题|题目|问)(?:\s?(?:№\s?)?\d{1,3})?\s?[:：]"
# Between two verdicts, the second of which counts: "However, ... The right choice is E".
TURNED_AROUND = r"(?i)\b(?:however|but|yet|cannot|can't|instead|бірақ|алайда|однако|но)\b|但|然而"
RIGHT_ONE = (
    r"(?i)(?:\n|[.!]\s)\s{0,3}(?:so,? |thus,? |hence,? |therefore,? )?the (?:right|correct|best|final) (?:choice|answer|option) is\W{0,3}"
    r"(?:answer:\s)?$"
)
