import js from '@eslint/js';
import tseslint from 'typescript-eslint';

export default tseslint.config(
  {
    ignores: [
      'dist/',
      'native/',
      'node_modules/',
      'runs/',
      '.gpu/',
      '.oracle/',
      'api/',
      'prebuilds/',
      'site/dist/',
      'site/.vitepress/cache/',
    ],
  },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.recommended],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/await-thenable': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      // One dialect: members are private to the language (#name), and numbers stand in templates as they are.
      'no-restricted-syntax': [
        'error',
        {
          selector: ':matches(PropertyDefinition, MethodDefinition[kind!="constructor"])[accessibility="private"]',
          message: 'write #name instead of private name',
        },
        {
          selector: 'TemplateLiteral > CallExpression[callee.name="String"]',
          message: 'a template makes a string of what stands in it',
        },
      ],
    },
  },
  {
    // Tests say what they mean with less ceremony.
    files: ['{src,recipes,examples,bench}/**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    rules: {
      // Lists, and what stood in a file or was thrown by anyone, are shown in messages as they are.
      '@typescript-eslint/restrict-template-expressions': 'off',
      '@typescript-eslint/no-base-to-string': 'off',
      '@typescript-eslint/no-confusing-void-expression': [
        'error',
        { ignoreArrowShorthand: true, ignoreVoidReturningFunctions: true },
      ],
      // With noUncheckedIndexedAccess, for what the line before has made sure of.
      '@typescript-eslint/no-non-null-assertion': 'off',
      // A type that only the caller knows, and an interface that may have to wait.
      '@typescript-eslint/no-unnecessary-type-parameters': 'off',
      '@typescript-eslint/require-await': 'off',
      // Wrong about what was kept of a catch, functions of Node's modules, mapped types, assertions that tsc needs, and a
      // void that says "not wanted".
      '@typescript-eslint/only-throw-error': 'off',
      '@typescript-eslint/no-unnecessary-type-assertion': 'off',
      '@typescript-eslint/unbound-method': 'off',
      '@typescript-eslint/no-generated-empty-object-type': 'off',
      '@typescript-eslint/no-meaningless-void-operator': 'off',
    },
  },
  {
    files: ['**/*.js', '**/*.mjs'],
    languageOptions: { globals: { process: 'readonly', console: 'readonly', URL: 'readonly', Buffer: 'readonly' } },
  },
);
