// The words of a page in the language that is chosen, with its plural and number forms.
// Owns the catalogues in memory. Invariant: a text comes from a catalogue, or it is data; no word is written in the code.

const WRITTEN_AS = { kk: "ru" }; // Chromium has no Kazakh numbers; Russian ones are written alike: 1 200 and 0,3

// The words of these languages, all at once: another language needs no server then, and never comes from an older version.
export async function loadWords(languages) {
  const loaded = languages.map(async (language) => {
    const reply = await fetch(`/kiosk/words/${language}.json`);
    if (!reply.ok) throw new Error(`no words for ${language}`);
    return [language, new Words(language, await reply.json())];
  });
  return new Map(await Promise.all(loaded));
}

export class Words {
  constructor(language, catalogue) {
    this.language = language;
    this.catalogue = catalogue;
    this.plural = new Intl.PluralRules(language);
  }

  // The text of a key; {names} in it are replaced. With a number n, the form that the language uses for it.
  say(key, values = {}) {
    let text = this.catalogue[key];
    if (text === undefined) throw new Error(`no word for ${key}`);
    if (typeof text === "object") text = text[this.plural.select(values.n)] ?? text.other;
    return text.replace(/\{(\w+)\}/g, (_, name) => (name === "n" ? this.number(values.n) : String(values[name] ?? "")));
  }

  number(value, options = {}) {
    return new Intl.NumberFormat(WRITTEN_AS[this.language] ?? this.language, options).format(value);
  }

  percent(share) {
    return this.number(share, { style: "percent", maximumFractionDigits: 0 });
  }

  // A short time as a person would say it: two digits below a second, whole seconds from ten on.
  seconds(ms) {
    const value = ms / 1000;
    const digits = value < 0.1 ? 2 : value < 10 ? 1 : 0;
    const rounded = Number(value.toFixed(digits)) || 0.01;
    const form = this.catalogue.seconds[this.plural.select(rounded)] ?? this.catalogue.seconds.other;
    return form.replace("{n}", this.number(rounded));
  }
}
