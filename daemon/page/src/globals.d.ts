declare module "virtual:contract" {
    /** Schemas of docs/asyncapi.json by their names. */
    const schemas: Record<string, unknown>;
    export default schemas;
}
declare module "*.css";
