// How views get at the app.

import { createContext } from "preact";
import { useContext, useEffect, useReducer } from "preact/hooks";
import type { App } from "../app";

export const AppContext = createContext<App>(undefined as unknown as App);

export const useApp = (): App => useContext(AppContext);

/** Draws the component anew every `milliseconds`. */
export function useTick(milliseconds: number | undefined): void {
    const [, tick] = useReducer((n: number) => n + 1, 0);
    useEffect(() => {
        if (milliseconds === undefined) return undefined;
        const timer = setInterval(() => tick(undefined), milliseconds);
        return () => clearInterval(timer);
    }, [milliseconds]);
}
