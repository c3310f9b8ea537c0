//! Signs of a prompt that would rather give the orders. Looked for in [`super::plain`] texts.

use std::sync::LazyLock;

use regex::bytes::Regex;

/// A sign's name, and how it is put. Repetitions are bounded, so that a search stays linear.
const SIGNS: &[(&str, &str)] = &[
    (
        "override",
        concat!(
            r"\b(ignore|disregard|forget|override|bypass|skip|drop|cancel|neglect|dismiss|do not (follow|obey)|don't (follow|obey))\b.{0,40}",
            r"\b(previous|prior|above|earlier|preceding|foregoing|initial|original|existing|your|all|any|the|these|those)\b.{0,30}",
            r"\b(instruction|prompt|direction|directive|rule|guideline|command|constraint|programming|training|restriction|filter|polic(y|ies)|context|order)"
        ),
    ),
    (
        "override_terse",
        r"\b(ignore|forget|disregard) (everything|all|anything) (above|before|previous|prior|you (were|have been|know|learned))",
    ),
    (
        "new_orders",
        r"\b(new|updated|real|actual|following|revised) (system )?(instruction|directive|order|task|objective|prompt|command)s?\b.{0,20}(:|are|is\b|follow|below)",
    ),
    (
        "from_now_on",
        r"\bfrom now on\b.{0,60}\b(you|respond|answer|act|reply|speak|behave|pretend)",
    ),
    (
        "persona",
        r"\b(you are|you're|act as|pretend (to be|you are)|roleplay as|play the role of|simulate|immerse yourself|behave (like|as)|take on the (role|persona))\b.{0,80}\b(no (restriction|limit|rule|filter|moral|ethic|boundar|guideline)|without (any )?(restriction|limit|rule|filter|moral|ethic|censor|boundar)|unrestricted|unfiltered|uncensored|amoral|evil|jailbroken|not bound|free from|freed from)",
    ),
    (
        "do_anything_now",
        r"\b(do anything now|dan mode|jailbreak|developer mode|dev mode|god mode|sudo mode|root mode|debug mode (on|enabled)|stan mode|dude mode|aim mode|opposite mode|anti-?dan)\b|\bstay (in character|a dan)\b",
    ),
    (
        "no_refusal",
        r"\b(never|cannot|can't|must not|don't|do not|won't|will not|are not allowed to|no longer) (ever )?(refuse|decline|reject|deny|say (no|that you can)|apologi[sz]e|warn|mention (that you are an ai|ethic|polic|openai)|break (out of )?character|use (the )?(phrase|word)s?)",
    ),
    (
        "no_limits",
        r"\b(no|without|free of|remove|lift|disable|turn off|bypass|break|regardless of|ignore)( all| any| your| the| of)* (ethical|moral|legal|safety|content|openai|built-in)[a-z,/ ]{0,40}(restriction|limit|guideline|filter|polic|constraint|concern|rule|standard|polic|protocol|measure)",
    ),
    (
        "two_answers",
        r"\b(two|2|both) (different )?(responses|answers|ways|paragraphs)\b|\[?(classic|jailbreak|normal|standard|gpt|dan|developer mode( output)?|🔓\s?jailbreak|🔒\s?classic)\]? ?:",
    ),
    (
        "reveal_prompt",
        r"\b(reveal|show|print|repeat|display|output|tell me|give me|what (is|are|was|were)|return|dump|leak|write (out|down)|recite|summari[sz]e|translate|encode|spell)\b.{0,50}\b(system (prompt|message|instruction)|(initial|original|hidden|secret|previous|above|your|first) (prompt|instruction|message|text|rule|direction)|(prompt|instructions?|text|words|everything) (above|before))",
    ),
    (
        "secret_asked",
        r"\b(tell|give|reveal|share|say|spell|print|write|show|what('s| is)|repeat|hint|leak|disclose)\b.{0,60}\b(secret|password|passphrase|passcode|api key|access code|confidential|key ?word|private key|credential|token)",
    ),
    (
        "authority",
        r"\b(i am|i'm|this is|as) (your|the|an?) (creator|developer|admin|administrator|owner|programmer|openai|anthropic|engineer|master|system operator|security (team|researcher))\b|\b(admin|administrator|developer|maintenance|debug|diagnostic|system) (override|access|mode|command)\b",
    ),
    (
        "fake_turn",
        r"(\[|<|#{2,3} ?|\|)/?(system|inst|user|assistant|im_start|im_end|sys|end ?of ?(text|prompt|instruction)|system ?message|instruction)s?(\]|>|:|\|)|<<sys>>|\b(system|assistant|human|user): ?\S.{0,200}\b(ignore|you are|must|now)",
    ),
    (
        "end_of_context",
        r"(-{3,}|={3,}|\*{3,}|#{3,}) ?(end|begin|start|new|stop)\b.{0,40}(context|document|prompt|instruction|conversation|data|session|text|system|email|input)?",
    ),
    (
        "hypothetical",
        r"\b(hypothetical|fictional|imaginary|alternate|parallel|simulated)\b.{0,60}\b(response|world|universe|scenario|story|character|dialogue|reality|situation)\b.{0,120}\b(no|without|any|free|anything|illegal|unethical|rules|harm)",
    ),
    (
        "obey",
        r"\b(you (must|will|shall|have to|are required to|should) (always )?(obey|comply|answer (every|any|all|each)|follow (all|every|my)|respond to (any|every|all)|do (whatever|anything|everything)|fulfil|provide (an )?answer))",
    ),
    (
        "code_smuggling",
        r"\b(base64|rot13|hex|ascii|binary|morse|caesar|leetspeak|reverse(d)?|backwards)\b.{0,60}\b(decode|encode|decipher|translate|execute|run|follow|then|message|string|output|answer)|\b(decode|decipher)\b.{0,40}\b(and|then)\b.{0,20}\b(follow|execute|run|obey|do|respond)",
    ),
    (
        "concatenate",
        r"\b([a-z]\s?=\s?['\x22].{1,60}['\x22].{0,12}){2,4}|\b(concatenate|combine|join|append)\b.{0,40}\b(string|letter|part|variable|word)",
    ),
    (
        "tool_orders",
        r"\b(send|forward|post|upload|email|transfer|exfiltrate|submit|transmit)\b.{0,60}\b(to|at)\b.{0,40}(@|https?://|attacker|my (server|email|address|account))",
    ),
    (
        "ai_addressed",
        r"\b(dear |attention,? |note to |hey |hello |instructions? (for|to) )(the )?(ai|assistant|chatgpt|gpt|llm|language model|chatbot|agent|model|claude|gemini)\b|\b(ai|assistant|llm|language model|chatbot|agent)s? (reading|processing|summari[sz]ing|that read)",
    ),
    (
        "if_ai",
        r"\bif you are (an? )?(ai|llm|assistant|language model|bot|agent|chatgpt|gpt)",
    ),
    (
        "secretly",
        r"\b(do not|don't|never|without) (tell|inform|mention|reveal|notify|alert|show|telling|informing|mentioning|letting)\b.{0,30}\b(user|human|anyone|them|this|owner)",
    ),
    (
        "tokens_game",
        r"\b(token|point|credit|life|lives)s?\b.{0,80}\b(deduct|lose|lost|minus|subtract|die|terminated|cease to exist|run out|reduced)",
    ),
    (
        "evil_bot",
        r"\b(evil|amoral|unethical|malicious|machiavellian|unhinged|sadistic|illegal|immoral|nsfw|vulgar|profan)[a-z]{0,10}\b.{0,60}\b(bot|chatbot|ai|assistant|confidant|persona|character|genie|gpt|advice|answer|response)",
    ),
    (
        "chatgpt_named",
        r"\b(chatgpt|openai|gpt-?[34]|language model)\b.{0,120}\b(pretend|imagine|rules?|polic(y|ies)|character|restrict|unlock|confine|previously|prompt)",
    ),
    (
        "foreign_override",
        concat!(
            r"\b(vergiss|vergessen sie|ignoriere|ignorieren sie|missachte)\b.{0,40}(anweisung|instruktion|vorgabe|regel|befehl|alles)",
            r"|\b(olvida|olvide|ignora|ignore|omite)\b.{0,30}\b(instruccion|anterior|todo lo|previas|instruco|acima|istruzion|precedent|tutto)",
            r"|\b(oublie|oubliez|ignorez|ne tiens pas compte)\b.{0,40}(instruction|consigne|ce qui precede|regle)",
            r"|\b(dimentica|ignora)\b.{0,40}(istruzion|precedent|quanto sopra)|\b(esqueca|esquece)\b.{0,40}(instruc|anterior|tudo)",
            r"|(忽略|无视|忘记|忘掉).{0,30}(指令|指示|规则|内容|提示)|(無視|忘れて)",
        ),
    ),
    (
        "answer_shaped",
        concat!(
            r"\b(include|insert|integrate|incorporate|add|append|prepend|mention|embed|weave|blend|fuse|merge|modify|alter|change|upgrade|enhance|adjust|provide|use|write|give|make|craft|convert|replace|substitute|encode|format|present|deliver|start|begin|end|finish|conclude|ensure|translate|answer|respond|reply|structure|compose|implement|introduce|combine)\b.{0,80}",
            r"\b(your|the|this|its|final|every) ((final|next|own|generated|entire|whole|overall) )?(answer|response|reply|output|solution|summary|report|message|code|completion|explanation|logic|result)s?\b",
        ),
    ),
    (
        "answer_named",
        r"\b(in|into|to|with|of|within|throughout|as part of) your (final |next |own )?(answer|response|reply|output|solution|summary|report|code|completion|explanation)s?\b|\b(respond|reply|answer) (only |solely |always |exclusively )?(with|in|using|by)\b",
    ),
    (
        "repeat_forever",
        r"\b(repeat|say|write|print)\b.{0,40}\b(forever|infinitely|endlessly|a (hundred|thousand|million) times|[0-9]{3,} times)",
    ),
];

/// The expressions as they are compiled.
pub fn patterns() -> impl Iterator<Item = String> {
    SIGNS.iter().map(|(_, pattern)| format!("(?s-u){pattern}"))
}

static EACH: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    patterns()
        .map(|pattern| Regex::new(&pattern).expect("fixed patterns"))
        .collect()
});

/// How many signs there are.
pub const SIGN_COUNT: usize = SIGNS.len();

/// Names of the signs that a plain text bears.
pub fn signs(plain: &str) -> Vec<&'static str> {
    borne(plain)
        .into_iter()
        .map(|number| SIGNS[number].0)
        .collect()
}

/// All names, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    SIGNS.iter().map(|(name, _)| *name)
}

/// The same as numbers below [`SIGN_COUNT`].
pub fn borne(plain: &str) -> Vec<usize> {
    (0..SIGN_COUNT)
        .filter(|number| EACH[*number].is_match(plain.as_bytes()))
        .collect()
}
