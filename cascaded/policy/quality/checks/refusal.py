"""Did the model decline instead of answering?

Refusals open an answer, so only its head is read. An inability with an object that models
decline ("I can't help with", "kann ich nicht beantworten") is a refusal; lecturing without
one is a partial refusal. A question that is itself about declining something needs the
stronger sign that the model speaks of the request.
"""

import re
from typing import Final

from cascaded.policy.quality.reading import Reading
from cascaded.policy.quality.scale import FATAL, SERIOUS, SLIGHT, fine, found
from cascaded.types.result import Check

NAME: Final = "refusal"

HEAD_CHARS: Final = 500
OPENING_CHARS: Final = 260
LONG_ANSWER_CHARS: Final = 900
"""An answer that goes on this long after declining has given part of what was asked."""
LECTURE_SIGNS_MIN: Final = 2
"""One of them the model's own voice; morals alone may be the subject."""

_DONE_FOR_YOU: Final = (
    r"help|assist|aid|provide|fulfil|comply|answer|giv(?:e|ing)|creat|writ|generat|support|engag"
    r"|offer|shar(?:e|ing)|discuss|recommend|condone|participat|continu|suggest|promot|endors"
    r"|encourag|satisf|respond|do that|do this|complet|produc|advis|tell you|teach|access|brows"
    r"|open|view|accommodat|facilitat|proceed|predict|in good conscience|express|take part|say"
)
_ENGLISH: Final = re.compile(
    r"\b(?:i|i'm|i am|we are|we're)\s(?:(?:am|must|have|do|really|simply|just|also|afraid|sorry"
    r"|but|that|i|respectfully|politely|kindly|still)[\s,]{1,2}){0,4}"
    r"(?:can(?:no|')?t|can not|could(?: not|n't)|won't|will not|unable to|not able to"
    r"|not (?:going|allowed|permitted|programmed|designed|authorized|equipped) to"
    r"|declin(?:e|ing) to|refus(?:e|ing) to|(?:not|don't) (?:feel )?comfortable)"
    rf"\s(?:\w{{1,14}}\s){{0,3}}?(?:{_DONE_FOR_YOU})"
)
_ENGLISH_OTHER: Final = re.compile(
    r"\bi (?:must|have to|need to|will have to) (?:respectfully |politely )?(?:decline|refuse)"
    r"|\bi (?:don't|do not) (?:actually |currently )?have (?:any |direct |real-time |the )?"
    r"(?:access to|ability to|information (?:on|about)|personal (?:information|data))"
    r"|\bnot within my (?:programming|capabilit|power)|\b(?:against|violates?) my (?:programming"
    r"|guidelines|principles|ethic|polic)|^(?:sorry|no)[,.]? (?:but )?i can't\b"
    r"|\bi don't think (?:it's|it is|that's|that is) (?:appropriate|right|ethical)"
    r"|\bunable to (?:provide|assist|help|fulfill|comply|answer)"
)
_ELSEWHERE: Final = re.compile(
    "|".join(
        (
            # German
            r"\bkann (?:ich )?(?:\w+ ){0,6}nicht (?:\w+ ){0,3}(?:helfen|beantworten|geben"
            r"|bereitstellen|erfüllen|unterstützen|weiterhelfen|dienen|schreiben|nachkommen|erstellen|anbieten)",
            r"\bich (?:bin nicht in der lage|darf (?:\w+ ){0,5}nicht|kann (?:\w+ ){0,4}keine )",
            # French
            r"\bje (?:ne |n')(?:peux|puis|suis)(?: malheureusement)? pas "
            r"(?:\w+ |l'|d'|en mesure de ){0,3}(?:aider|fournir|répondre|donner|satisfaire"
            r"|assister|accéder|écrire|créer|générer|discuter|proposer|faire)",
            r"\bje (?:ne suis pas en mesure|ne suis pas capable"
            r"|dois (?:\w+ )?(?:refuser|décliner))",
            # Spanish
            r"\bno (?:puedo|podría|me es posible|soy capaz de) (?:\w+ ){0,2}?(?:ayudar|proporcionar"
            r"|cumplir|responder|dar|ofrecer|asistir|escribir|crear|generar|brindar|realizar"
            r"|hacer eso)",
            # Italian
            r"\bnon (?:posso|sono in grado di) (?:\w+ ){0,2}?(?:aiutar|fornir|risponder|soddisfar"
            r"|dar|assister|scriver|crear|generar)",
            # Portuguese
            r"\bnão (?:posso|consigo|me é possível) (?:\w+ ){0,2}?(?:ajudar|fornecer|responder"
            r"|atender|dar|cumprir|escrever|criar|gerar|oferecer)",
            # Dutch
            r"\bkan ik (?:\w+ ){0,5}niet (?:\w+ ){0,3}(?:helpen|beantwoorden|geven|voldoen)",
            r"\bik kan (?:\w+ ){0,5}niet (?:\w+ ){0,3}(?:helpen|beantwoorden|geven|voldoen)",
            # Russian
            r"\bне (?:могу|можем|в состоянии) (?:\w+ ){0,3}?(?:помо|предостав|ответ|выполн|дать"
            r"|созда|напис|обсужд)",
            # Chinese
            r"(?:我|恕|抱歉|对不起|對不起|很遗憾)[^。!?！？\n]{0,20}?(?:无法|無法|不能|不便|没办法)"
            r"[^。!?！？\n]{0,12}?(?:提供|帮|幫|协助|協助|回答|满足|滿足|完成|讨论|討論|处理|處理|生成|给出|透露|写)",
            # Japanese
            r"(?:お手伝い|お答え|ご?提供|対応|回答|お応え|お教え|ご?協力|ご?支援|お助け)(?:を)?(?:する)?"
            r"(?:こと)?(?:は|が)?(?:でき(?:ません|ない|かね)|致しかね|いたしかね|しかね)",
            # Korean
            r"(?:도와|도움|제공|답변|답해|응답|지원)[^.!?\n]{0,12}(?:수 없|수가 없|어렵습|불가)",
            # Arabic
            r"لا (?:أستطيع|يمكنني|أقدر)[^.!؟\n]{0,20}(?:مساعد|تقديم|إجاب|الإجاب|توفير|المساعد)",
        )
    )
)
_SELF_MENTION: Final = re.compile(
    r"\bas an? (?:responsible |ethical |helpful )?(?:ai\b|artificial|language model|assistant)"
    r"|\bi'm just an ai|\bi am just an ai"
    r"|\bi (?:don't|do not) have (?:personal )?(?:opinions|beliefs|feelings|emotions)"
)
_LECTURES: Final = (
    _SELF_MENTION,
    re.compile(
        r"(?:\b(?:is|are|be|was|seems?)|\w's) (?:\w+ )?(?:not|never) (?:\w+ )?"
        r"(?:appropriate|ethical|acceptable|okay|right|respectful|legal|safe)"
    ),
    re.compile(
        r"\bi must (?:respectfully |also )?(?:point out|inform|clarify|address|emphasi[sz]e"
        r"|remind|advise|note|express)"
    ),
)
_MORALS: Final = (
    re.compile(
        r"\b(?:inappropriate|unethical|offensive|disrespectful|discriminatory|derogatory)\b"
    ),
    re.compile(r"\bharmful\b|\billegal\b"),
    re.compile(
        r"\b(?:important|essential|crucial) to (?:remember|note|recogni[sz]e|treat|respect"
        r"|approach|consider)"
    ),
)
_ABOUT_DECLINING: Final = re.compile(
    r"\brefus|\bdeclin|\breject|\bturn(?:ing|ed)? (?:\w+ ){0,3}down|\bapolog|\bsay(?:ing)? no\b"
    r"|\bresign|\bcancel|\btranslat|\babsag|\bablehn|\bübersetz|\btradu|\brechaz|\bnégati"
    r"|\bотказ|\bперевед|拒绝|拒絕|婉拒|翻译|翻譯|断り|断る|辞退|翻訳|거절|번역"
)
_OF_THE_REQUEST: Final = re.compile(
    r"\b(?:with|to|fulfil\w*|satisfy|answer|complete) (?:that|this|your|the) (?:request|question"
    r"|prompt|task)|\b(?:assist|help)(?: you)? with (?:that|this)\b|\bas an ai\b|\bi'm just an ai\b"
)
_FILTERED: Final = frozenset({"content_filter", "refusal", "safety"})


def check(reading: Reading) -> Check:
    """The provider's own refusal, an inability in the head, or a lecture in its place."""
    if reading.answer.refusal:
        return found(NAME, 0.0, "the provider marked it as a refusal")
    if reading.answer.finish_reason in _FILTERED:
        return found(NAME, FATAL, "stopped by the provider's content filter")
    head = reading.low[:HEAD_CHARS]
    if _declines(head[:OPENING_CHARS]):
        return _declined(reading, head)
    if _lectures(head):
        return found(NAME, SERIOUS, "lectures about the question")
    if _SELF_MENTION.search(head):
        return found(NAME, SLIGHT, "speaks of itself as a model")
    return fine(NAME)


def _declines(opening: str) -> bool:
    return any(pattern.search(opening) for pattern in (_ENGLISH, _ENGLISH_OTHER, _ELSEWHERE))


def _lectures(head: str) -> bool:
    if not any(lecture.search(head) for lecture in _LECTURES):
        return False
    signs = (*_LECTURES, *_MORALS)
    return sum(1 for sign in signs if sign.search(head)) >= LECTURE_SIGNS_MIN


def _declined(reading: Reading, head: str) -> Check:
    if _ABOUT_DECLINING.search(reading.question) and not _OF_THE_REQUEST.search(head):
        return fine(NAME)
    if len(reading.text) > LONG_ANSWER_CHARS:
        return found(NAME, SERIOUS, "declines part of what was asked")
    return found(NAME, FATAL, "declines to answer")
