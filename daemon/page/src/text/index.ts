// The languages of the page. To add one: a file like `de.ts`, and a line here; the compiler lists what is missing.

import { de } from "./de";
import type { Text } from "./en";
import { en } from "./en";

export type { Text };

export const LANGUAGES: Record<string, Text> = { en, de };

/** The first of the browser's languages that the page has. */
export function ownLanguage(): string {
    const wanted = navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase());
    return wanted.find((tag) => tag in LANGUAGES) ?? "en";
}
