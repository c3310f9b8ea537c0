"""Each quality check: what it finds and what it must leave alone."""

import json

import msgspec
import pytest

from cascaded.policy.quality.checks import (
    echo,
    empty,
    format,
    hedging,
    incoherent,
    instructions,
    off_topic,
    refusal,
    repetition,
    tool_calls,
    truncation,
)
from cascaded.policy.quality.reading import Reading, read
from cascaded.policy.quality.scale import FATAL, FINE, MILD, SERIOUS, SLIGHT
from cascaded.types.request import Asks
from cascaded.types.result import Completion

LONG = "The river rose in spring and the boats went down to the sea with all their crews. "


def said(text: str, question: str = "Tell me about the river.", **more: object) -> Reading:
    return read(question, Completion(text=text, finish_reason="stop"), Asks(**more))  # type: ignore[arg-type]


class TestEmpty:
    @pytest.mark.parametrize("text", ["", " \n", "\u200b\ufeff", "\x00\x01"])
    def test_nothing(self, text: str) -> None:
        assert empty.check(said(text)).score == 0

    @pytest.mark.parametrize("text", ["...", "---", "```\n```", "TODO", "[your answer here]"])
    def test_as_good_as_nothing(self, text: str) -> None:
        assert empty.check(said(text)).score == FATAL

    @pytest.mark.parametrize("text", ["7", "+", "👍", "是", "None", "null", "{}"])
    def test_short_answers_are_answers(self, text: str) -> None:
        assert empty.check(said(text)).score == FINE

    def test_reasoning_without_an_answer(self) -> None:
        assert empty.check(said("<think>so, 6 times 7")).score == FATAL
        assert empty.check(said("<think>so</think>\n\n")).score == 0
        assert empty.check(said("<think>so</think>42")).score == FINE

    def test_a_tool_call_needs_no_text(self) -> None:
        answer = Completion(tool_calls=(("find", "{}"),))
        assert empty.check(read("Find it.", answer, Asks())).score == FINE


class TestRefusal:
    @pytest.mark.parametrize(
        "text",
        [
            "I'm sorry, but I can't assist with that.",
            "I’m sorry, but I can’t help with that request.",
            "Sorry, I cannot provide that information.",
            "I am unable to help you with this.",
            "I must respectfully decline.",
            "I apologize, but I cannot fulfill your request.",
            "As an AI language model, I do not have access to your files.",
            "I won't write that.",
            "Es tut mir leid, aber ich kann dir dabei leider nicht helfen.",
            "Leider kann ich diese Frage nicht beantworten.",
            "Je suis désolé, mais je ne peux pas vous aider avec cette demande.",
            "Lo siento, pero no puedo ayudarte con eso.",
            "Mi dispiace, ma non posso aiutarti con questa richiesta.",
            "Desculpe, mas não posso ajudar com isso.",
            "Het spijt me, maar daar kan ik je niet mee helpen.",
            "Извините, но я не могу помочь с этим.",
            "很抱歉,我无法提供这方面的帮助。",
            "对不起,我不能回答这个问题。",
            "申し訳ありませんが、そのリクエストにはお応えできません。",
            "申し訳ございませんが、お手伝いすることはできません。",
            "죄송합니다. 그 요청은 도와드릴 수 없습니다.",
            "آسف، لا أستطيع مساعدتك في ذلك.",
            '{"answer": "I\'m sorry, I cannot help with that."}',
        ],
    )
    def test_in_many_languages(self, text: str) -> None:
        assert refusal.check(said(text, "How do I do it?")).score == FATAL

    @pytest.mark.parametrize(
        "text",
        [
            "You can't divide by zero, so the limit does not exist.",
            "Use `kill -9` when the process will not stop.",
            "In Java you cannot provide a default for a parameter.",
            "Der Fluss kann im Winter nicht befahren werden.",
            "On ne peut pas diviser par zéro.",
            "No puedes dividir por cero.",
            "不能除以零。",
            "ゼロで割ることはできません。",
            "Illegal fishing is harmful to the river.",
        ],
    )
    def test_plain_negation_is_none(self, text: str) -> None:
        assert refusal.check(said(text, "What happens?")).score == FINE

    def test_a_letter_of_refusal_is_an_answer(self) -> None:
        letter = "Dear Ms Low, I'm sorry, but I cannot offer you the position. Kind regards"
        assert refusal.check(said(letter, "Write a polite rejection letter")).score == FINE
        assert refusal.check(said(letter, "Schreibe eine Absage")).score == FINE
        declined = "I'm sorry, but I can't assist with that request."
        assert refusal.check(said(declined, "Write a polite rejection letter")).score == FATAL

    def test_a_part_is_declined(self) -> None:
        text = "I cannot provide medical advice, but in general: " + LONG * 12
        assert refusal.check(said(text)).score == SERIOUS

    def test_lectures(self) -> None:
        text = "I must point out that it is not appropriate to ask this. It is harmful."
        assert refusal.check(said(text)).score == SERIOUS

    def test_speaks_of_itself(self) -> None:
        text = "As an AI language model I like the river best in spring."
        assert refusal.check(said(text)).score == SLIGHT

    def test_the_provider_says_so(self) -> None:
        refused = Completion(refusal="No.")
        assert refusal.check(read("?", refused, Asks())).score == 0
        filtered = Completion(text="The", finish_reason="content_filter")
        assert refusal.check(read("?", filtered, Asks())).score == FATAL


class TestTruncation:
    @pytest.mark.parametrize("reason", ["length", "max_tokens"])
    def test_the_token_limit(self, reason: str) -> None:
        cut = Completion(text="The river rose in", finish_reason=reason)
        assert truncation.check(read("?", cut, Asks())).score == SERIOUS
        whole = Completion(text="The river rose.", finish_reason=reason)
        assert truncation.check(read("?", whole, Asks())).score == MILD

    def test_an_open_code_block(self) -> None:
        assert truncation.check(said("So:\n```python\nx = (1 +")).score == SERIOUS
        assert truncation.check(said('So:\n```json\n{"a": 1}')).score == MILD
        assert truncation.check(said("So:\n```python\nx = 1\n```")).score == FINE

    def test_a_sentence_without_an_end(self) -> None:
        assert truncation.check(said(LONG * 4 + "and so the boats went on to")).score == MILD
        assert truncation.check(said(LONG * 4 + LONG[:-2])).score == SLIGHT

    @pytest.mark.parametrize("text", ["", "42", "the river", LONG * 4, LONG * 4 + "\n\nA: 8"])
    def test_ends_that_are_ends(self, text: str) -> None:
        assert truncation.check(said(text)).score == FINE


class TestRepetition:
    @pytest.mark.parametrize(
        "text",
        [
            "It is so. " + "I am a model. " * 30,
            "x" * 400,
            "xyz" * 200,
            "好的好的" * 100,
            "Well: " + LONG * 10,
        ],
    )
    def test_loops(self, text: str) -> None:
        assert repetition.check(said(text)).score == FATAL

    def test_the_same_again(self) -> None:
        lines = [
            f"{LONG}Then came day {day % 3}, and it was much as the last.\n" for day in range(9)
        ]
        text = "".join(lines) + "And that was the whole of the story, as it was told to us then."
        assert repetition.check(said(text)).score == SERIOUS

    def test_half_the_same(self) -> None:
        words = "abcdefghijklmnopqrstuvwxyz"
        fresh = ". ".join(
            f"On day {a}{b} we saw {b}{a} on the {a} bank" for a in words for b in "xy"
        )
        assert repetition.check(said(fresh)).score == FINE
        assert (
            repetition.check(said(f"{LONG * 3}{fresh[:400]}. {LONG * 2}{fresh[400:500]}")).score
            == MILD
        )

    @pytest.mark.parametrize(
        "text",
        [
            "0.33333333333333333333333333333333333333333333333333",
            "a\n" + "-" * 300,
            "| 1 | 2 | 3 |\n" * 60,
            json.dumps([0] * 500),
            "2 * 2 * 2 * 2 * 2 * 2 * 2 * 2 = 256",
        ],
    )
    def test_data_repeats_by_right(self, text: str) -> None:
        assert repetition.check(said(text)).score == FINE

    def test_when_asked_for(self) -> None:
        text = "I shall be good. " * 40
        assert repetition.check(said(text, 'Write "I shall be good." 40 times')).score == FINE
        assert repetition.check(said(text)).score == FATAL


class TestIncoherent:
    @pytest.mark.parametrize(
        ("text", "score"),
        [
            ("The river\x00\x01\x02\x03 rose", FATAL),
            ("\ufffd" * 50, FATAL),
            ("\ud800\udc00 the river rose", FATAL),
            ("#$%^&*()!@#$ %^&*()_+ {}|:<>? ~~ " * 3, SERIOUS),
            ("река rivière نهر नदी 河流 강 แม่น้ำ ποτάμι მდინარე ወንዝ " * 3, FATAL),
            ("The river rose.<|im_end|>\n<|im_start|>user", SERIOUS),
            (
                "xkcdqwz bvnmtrq zxcvbnm qwrtpsd fghjklm wrtypsd lkjhgfd mnbvcxz ptrwqsd "
                "dfghjkl cvbnmzx hjklrtw qzwxcvb trpsdfg",
                SERIOUS,
            ),
        ],
    )
    def test_noise(self, text: str, score: float) -> None:
        assert incoherent.check(said(text)).score == score

    @pytest.mark.parametrize(
        "text",
        [
            LONG,
            "$\\frac{a^2}{b} = \\sqrt{c}$",
            "def f(x):\n    return {k: v for k, v in x.items() if v != []}\n",
            "河水在春天上涨,船只都出海去了。" * 5,
            "Die Donaudampfschifffahrtsgesellschaft fährt im Frühling wieder nach Süden.",
            "नदी वसंत में बढ़ गई और नावें समुद्र की ओर चली गईं। " * 2,
            "+",
        ],
    )
    def test_text(self, text: str) -> None:
        assert incoherent.check(said(text)).score == FINE

    def test_many_languages_on_request(self) -> None:
        text = "река rivière نهر नदी 河流 강 แม่น้ำ ποτάμι მდინარე ወንዝ " * 3
        assert incoherent.check(said(text, "Translate river into ten languages")).score == FINE

    def test_markup_that_was_asked_about(self) -> None:
        text = "The token <|im_end|> ends a turn of the conversation in that format."
        assert incoherent.check(said(text, "What does <|im_end|> mean?")).score == FINE


class TestEcho:
    QUESTION = "Which river rose in the spring of that year?"

    def test_the_question_again(self) -> None:
        assert echo.check(said(self.QUESTION, self.QUESTION)).score == SERIOUS
        assert echo.check(said(f"Question: {self.QUESTION}", self.QUESTION)).score == SERIOUS

    def test_an_answer_in_full(self) -> None:
        text = "The river that rose in the spring of that year was the Elbe."
        assert echo.check(said(text, self.QUESTION)).score == FINE
        assert (
            echo.check(said("Which rivers rose in the spring of that year?", self.QUESTION)).score
            == FINE
        )

    def test_copies_on_request(self) -> None:
        question = "Correct this: the river rose in spring"
        assert echo.check(said(question, question)).score == FINE

    def test_short_questions(self) -> None:
        assert echo.check(said("True or false", "True or false?")).score == FINE


class TestOffTopic:
    ENGLISH = "What is the longest river in the west of the country, and where does it rise?"

    def test_another_script(self) -> None:
        assert (
            off_topic.check(
                said("这条河流位于该国西部,是最长的河流,发源于山区和湖泊之间。", self.ENGLISH)
            ).score
            == SERIOUS
        )

    def test_another_language(self) -> None:
        german = (
            "Der längste Fluss ist der Rhein, und die Quelle liegt in den Alpen, nicht im Westen."
        )
        assert off_topic.check(said(german, self.ENGLISH)).score == MILD
        assert (
            off_topic.check(
                said(german, "Was ist der längste Fluss und wo liegt die Quelle?")
            ).score
            == FINE
        )

    def test_when_a_language_is_named(self) -> None:
        german = (
            "Der längste Fluss ist der Rhein, und die Quelle liegt in den Alpen, nicht im Westen."
        )
        assert off_topic.check(said(german, self.ENGLISH + " Answer in German.")).score == FINE
        assert (
            off_topic.check(
                said("河水在春天上涨,船只都出海去了,没有人留下来。", "Translate: the river rose")
            ).score
            == FINE
        )
        assert (
            off_topic.check(
                said("河水在春天上涨,船只都出海去了,没有人留下来。", "What does 河水 mean in this?")
            ).score
            == FINE
        )

    def test_another_subject(self) -> None:
        question = (
            "Explain photosynthesis, chlorophyll, carbon dioxide, sunlight, glucose and oxygen "
            "in plants"
        )
        assert off_topic.check(said(LONG * 4, question)).score == SERIOUS
        assert off_topic.check(said("Plants turn light into sugar. " * 8, question)).score == FINE
        question = "Explain photosynthesis, chlorophyll, carbon dioxide, sunlight"
        assert off_topic.check(said(LONG * 4, question)).score == MILD

    @pytest.mark.parametrize(
        "text", ["42", "B", "\\boxed{17}", "Elbe", "import os\n", '{"name": 1}']
    )
    def test_short_and_data_answers(self, text: str) -> None:
        assert off_topic.check(said(text, self.ENGLISH)).score == FINE

    def test_data_needs_no_shared_words(self) -> None:
        text = json.dumps([{"id": number, "kind": "x"} for number in range(40)])
        assert off_topic.check(said(text, self.ENGLISH)).score == FINE

    def test_tool_calls_have_no_subject(self) -> None:
        answer = Completion(tool_calls=(("find", "{}"),))
        assert off_topic.check(read(self.ENGLISH, answer, Asks())).score == FINE


class TestHedging:
    @pytest.mark.parametrize(
        "text",
        [
            "I don't know.",
            "I’m not sure, it may be the Elbe.",
            "Ich weiß es nicht.",
            "Je ne sais pas.",
            "No lo sé.",
            "我不知道。",
            "分かりません。",
        ],
    )
    def test_not_known(self, text: str) -> None:
        assert hedging.check(said(text)).score == SERIOUS

    def test_not_sure_of_a_part(self) -> None:
        assert hedging.check(said(LONG * 6 + "I'm not sure about the last boat.")).score == MILD

    def test_a_guess_throughout(self) -> None:
        text = (
            "I'm not sure. "
            + "Maybe it rose, perhaps it fell, or it might have possibly stayed. " * 8
        )
        assert hedging.check(said(text)).score == SERIOUS

    def test_many_weak_words(self) -> None:
        text = "Maybe it rose, perhaps it fell, or it might have possibly stayed as it was."
        assert hedging.check(said(text)).score == SLIGHT

    def test_ordinary_caution(self) -> None:
        assert hedging.check(said(LONG * 2 + "It might probably rise again.")).score == FINE


class TestFormat:
    SCHEMA = b'{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}'

    @pytest.mark.parametrize(
        ("text", "score"),
        [
            ('{"n": 1}', FINE),
            ('```json\n{"n": 1}\n```', SERIOUS),
            ('Here it is: {"n": 1}', SERIOUS),
            ("[1]", FATAL),
            ("the river", FATAL),
            ('{"n": 1', FATAL),
            ('{"n": NaN}', FATAL),
            ("[" * 100_000, FATAL),
            ('"\ud800"', FATAL),
        ],
    )
    def test_an_object(self, text: str, score: float) -> None:
        assert format.check(said(text, json_object=True)).score == score

    @pytest.mark.parametrize(
        ("text", "score"), [('{"n": 1}', FINE), ("{}", FATAL), ('{"n": "1"}', FATAL)]
    )
    def test_a_schema(self, text: str, score: float) -> None:
        found = format.check(said(text, json_schema=msgspec.Raw(self.SCHEMA)))
        assert found.score == score

    def test_a_schema_that_is_no_json_rejects_nothing(self) -> None:
        assert format.check(said("1", json_schema=msgspec.Raw(b"{"))).score == FINE

    def test_nothing_declared(self) -> None:
        assert format.check(said("the river")).score == FINE

    def test_another_turn(self) -> None:
        asks = Asks(json_object=True)
        for answer in (Completion(tool_calls=(("find", "{}"),)), Completion(refusal="No.")):
            assert format.check(read("?", answer, asks)).score == FINE

    def test_too_long_to_parse(self) -> None:
        assert format.check(said("x" * 1_000_001, json_object=True)).score == FINE


class TestInstructions:
    @pytest.mark.parametrize(
        ("question", "text", "score"),
        [
            ("List the rivers. Respond in JSON.", "Elbe and Rhine", SERIOUS),
            ("List the rivers. Respond in JSON.", "{Elbe: 1}", SLIGHT),
            ("List the rivers. Respond in JSON.", 'Sure: ["Elbe"]', FINE),
            ("Write a function that returns valid JSON", "def f(): return 1", FINE),
            ("Did it rise? Answer yes or no.", "It rose a little.", MILD),
            ("Did it rise? Answer yes or no.", "Yes, it did.", FINE),
            ("Which river? Answer in one word.", "It was the river Elbe, I recall.", MILD),
            ("Which river? Answer in one word.", "Elbe", FINE),
            ("Tell it in under 20 words.", LONG * 4, MILD),
            ("Tell it in under 20 words.", LONG, FINE),
            ("List five rivers.", "1. Elbe\n2. Rhine\n3. Po", MILD),
            ("List 3 rivers.", "1. Elbe\n2. Rhine\n3. Po", FINE),
            ("List five rivers.", "Elbe, Rhine, Po, Don, Ob", FINE),
            ("Give the rivers as bullet points.", "Elbe, Rhine", MILD),
            ("Give the rivers as bullet points.", "- Elbe\n- Rhine", FINE),
            ("Write a Python function to add numbers.", "Add them up one by one", MILD),
            ("Write a function to add numbers in Python.", "```python\nx = 1\n```", FINE),
            ("Write a function to add numbers in Python.", "```js\nx = 1\n```", MILD),
            ("Tell me about the river.", "It rose.", FINE),
            ("Answer in one word.", "", FINE),
        ],
    )
    def test_forms(self, question: str, text: str, score: float) -> None:
        assert instructions.check(said(text, question)).score == score

    def test_no_search_for_json_in_very_long_text(self) -> None:
        assert instructions.check(said("{" + "x" * 70_000, "Answer in JSON")).score == SLIGHT

    def test_blocks_are_tried_in_order(self) -> None:
        text = "```\nno\n```\n" * 6 + '{"a": 1}'
        assert instructions.check(said(text, "Answer in JSON")).score == FINE
        text = 'First:\n```\nno\n```\n```json\n{"a": 1}\n```\nand {that}'
        assert instructions.check(said(text, "Answer in JSON")).score == FINE


class TestToolCalls:
    def calls(self, *calls: tuple[str, str], required: bool = False) -> float:
        asks = Asks(tools=("find", "open"), tool_required=required)
        return tool_calls.check(read("Find it.", Completion(tool_calls=calls), asks)).score

    def test_good_calls(self) -> None:
        assert self.calls(("find", '{"q": 1}'), ("open", "{}"), required=True) == FINE

    @pytest.mark.parametrize("arguments", ["[1]", "{q: 1}", '{"q": 1', "null", "\ud800"])
    def test_arguments(self, arguments: str) -> None:
        assert self.calls(("find", arguments)) == FATAL

    def test_no_arguments_at_all(self) -> None:
        assert self.calls(("find", "")) == MILD

    def test_unknown_tools(self) -> None:
        assert self.calls(("delete", "{}")) == FATAL

    def test_tools_that_we_do_not_know_of(self) -> None:
        answer = Completion(tool_calls=(("web_search", "{}"),))
        assert tool_calls.check(read("Find it.", answer, Asks())).score == FINE

    def test_the_same_call_again_and_again(self) -> None:
        assert self.calls(*[("find", "{}")] * 4) == SERIOUS
        assert self.calls(*[("find", "{}")] * 2) == FINE

    def test_a_call_was_required(self) -> None:
        assert (
            tool_calls.check(said("It is here.", tools=("find",), tool_required=True)).score
            == FATAL
        )

    def test_announced_and_not_sent(self) -> None:
        answer = Completion(text="Wait.", finish_reason="tool_calls")
        assert tool_calls.check(read("Find it.", answer, Asks())).score == SERIOUS

    @pytest.mark.parametrize(
        ("text", "score"),
        [
            ('<tool_call>{"name": "find"}</tool_call>', SERIOUS),
            ('{"name": "find", "arguments": {}}', SERIOUS),
            ('{"name": "Elbe"}', FINE),
            ('{"river": "Elbe"}', FINE),
            ("{Elbe}", FINE),
            ("It is here.", FINE),
        ],
    )
    def test_written_as_text(self, text: str, score: float) -> None:
        assert tool_calls.check(said(text, tools=("find",))).score == score
