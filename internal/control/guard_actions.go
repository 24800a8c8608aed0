package control

import (
	"slices"
	"strings"
)

// A Surface is a way to spend money on Bedrock that a guard can close.
type Surface struct {
	Name    string   `json:"name"`
	Doc     string   `json:"doc"`
	Actions []string `json:"actions"` // as a policy names them; * is a wildcard
}

// Surfaces lists them, in the order in which help shows them. Bearer keys are not among
// them: they are always closed. Which action authorizes which call is in the Service
// Authorization Reference, "Amazon Bedrock" and "Amazon Bedrock Mantle": Converse, Chat
// Completions, Responses and Messages on bedrock-runtime have no action of their own, and
// are InvokeModel or InvokeModelWithResponseStream.
var Surfaces = []Surface{
	{"inference", "calls of models, on bedrock-runtime and bedrock-mantle", []string{"bedrock:InvokeModel*", "bedrock:StartAsyncInvoke", "bedrock:Rerank", "bedrock-mantle:CreateInference"}},
	{"batch", "batch inference jobs", []string{"bedrock:CreateModelInvocationJob"}},
	// CreateAgentSession and CreateAgentSessionEvent are those of the Bedrock User Guide, "Bedrock Managed
	// Agents", "Security and IAM roles".
	{"agents", "agents, inline agents, managed agents and the tools they call", []string{"bedrock:InvokeAgent", "bedrock:InvokeInlineAgent", "bedrock:InvokeBuilder", "bedrock:InvokeTool", "bedrock-mantle:CreateAgentSession*"}},
	{"flows", "flows", []string{"bedrock:InvokeFlow", "bedrock:StartFlowExecution"}},
	{"knowledge-bases", "queries and ingestion of knowledge bases", []string{"bedrock:Retrieve*", "bedrock:AgenticRetrieve*", "bedrock:GenerateQuery", "bedrock:StartIngestionJob", "bedrock:IngestKnowledgeBaseDocuments"}},
	{"guardrails", "guardrails and automated reasoning applied without a model", []string{"bedrock:ApplyGuardrail", "bedrock:InvokeGuardrailChecks", "bedrock:InvokeAutomatedReasoningPolicy"}},
	{"data-automation", "data automation and prompt optimization", []string{"bedrock:InvokeDataAutomation*", "bedrock:InvokeBlueprint*", "bedrock:OptimizePrompt", "bedrock:CreateAdvancedPromptOptimizationJob"}},
	{"training", "customization, evaluation, fine-tuning, and capacity that is paid for by time", []string{"bedrock:CreateModelCustomizationJob", "bedrock:CreateEvaluationJob",
		"bedrock:CreateModelEvaluationJob", "bedrock:CreateProvisionedModelThroughput", "bedrock:CreateCustomModelDeployment", "bedrock:CreateMarketplaceModelEndpoint",
		"bedrock:UpdateMarketplaceModelEndpoint", "bedrock-mantle:CreateFineTuningJob", "bedrock-mantle:CreateReservation", "bedrock-mantle:UpdateReservation"}},
}

// surface finds a surface by name.
func surface(name string) (Surface, bool) {
	for _, s := range Surfaces {
		if s.Name == name {
			return s, true
		}
	}
	return Surface{}, false
}

// The actions of bearer keys: one for each endpoint, and each needed beside the action
// that the call itself takes (Bedrock User Guide, "Control permissions for Amazon Bedrock
// API keys").
var bearerActions = []string{"bedrock:CallWithBearerToken", "bedrock-mantle:CallWithBearerToken"}

// What the gateway calls: the routes it lets through come down to these.
var (
	gatewayRuntime = []string{"bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"}
	// Stored responses are read, cancelled and deleted on the project (Bedrock User Guide,
	// "Responses API").
	gatewayStored = []string{"bedrock:GetInvoke", "bedrock:CancelInvoke", "bedrock:DeleteInvoke"}
	gatewayMantle = []string{"bedrock-mantle:CreateInference"}
	mantleStored  = []string{"bedrock-mantle:GetInference", "bedrock-mantle:CancelInference", "bedrock-mantle:DeleteInference"}
	gatewayGuards = []string{"bedrock:ApplyGuardrail"} // a call that names a guardrail needs it too
	gatewayReads  = []string{"bedrock:CountTokens", "bedrock-mantle:CountTokens", "bedrock-mantle:GetModel", "bedrock-mantle:ListModels"}
)

// gatewaySurfaces are the surfaces that the gateway itself uses. The others are closed to
// its roles as well: they have no business there.
var gatewaySurfaces = []string{"inference", "guardrails"}

// gatewayActions are all that the gateway's roles may do.
var gatewayActions = slices.Concat(gatewayRuntime, gatewayStored, gatewayMantle, mantleStored, gatewayGuards, gatewayReads)

// knownActions are the actions of Bedrock's two prefixes that the Service Authorization
// Reference and the Bedrock User Guide name (November 2026): what a proof asks about. A new
// action is covered where a wildcard of a surface covers it, and is unchanged elsewhere.
var knownActions = append(prefixed("bedrock:", `AgenticRetrieveStream AllowVendedLogDeliveryForResource ApplyGuardrail AssociateAgentCollaborator AssociateAgentKnowledgeBase AssociateThirdPartyKnowledgeBase
BatchDeleteAdvancedPromptOptimizationJob BatchDeleteEvaluationJob CallWithBearerToken CancelAutomatedReasoningPolicyBuildWorkflow CancelInvoke
CheckIngestedDocumentAcl CopyBlueprintStage CountTokens CreateAdvancedPromptOptimizationJob CreateAgent CreateAgentActionGroup CreateAgentAlias
CreateAutomatedReasoningPolicy CreateAutomatedReasoningPolicyTestCase CreateAutomatedReasoningPolicyVersion CreateBlueprint CreateBlueprintVersion
CreateCustomModel CreateCustomModelDeployment CreateDataAutomationLibrary CreateDataAutomationProject CreateDataSource CreateDataSourceToken
CreateEvaluationJob CreateFlow CreateFlowAlias CreateFlowVersion CreateFoundationModelAgreement CreateGuardrail CreateGuardrailVersion CreateInferenceProfile
CreateInvocation CreateKnowledgeBase CreateMarketplaceModelEndpoint CreateModelCopyJob CreateModelCustomizationJob CreateModelEvaluationJob
CreateModelImportJob CreateModelInvocationJob CreatePrompt CreatePromptRouter CreatePromptVersion CreateProvisionedModelThroughput CreateRetrievalInstruction
CreateRetrievalInstructionVersion CreateSession DeleteAgent DeleteAgentActionGroup DeleteAgentAlias DeleteAgentMemory DeleteAgentVersion
DeleteAutomatedReasoningPolicy DeleteAutomatedReasoningPolicyBuildWorkflow DeleteAutomatedReasoningPolicyTestCase DeleteBlueprint DeleteCustomModel
DeleteCustomModelDeployment DeleteDataAutomationLibrary DeleteDataAutomationProject DeleteDataSource DeleteEnforcedGuardrailConfiguration DeleteFlow
DeleteFlowAlias DeleteFlowVersion DeleteFoundationModelAgreement DeleteGuardrail DeleteImportedModel DeleteInferenceProfile DeleteInvoke DeleteKnowledgeBase
DeleteKnowledgeBaseDocuments DeleteMarketplaceModelAgreement DeleteMarketplaceModelEndpoint DeleteModelInvocationLoggingConfiguration DeletePrompt
DeletePromptRouter DeleteProvisionedModelThroughput DeleteResourcePolicy DeleteRetrievalInstruction DeleteSession DeregisterMarketplaceModelEndpoint
DetectGeneratedContent DisassociateAgentCollaborator DisassociateAgentKnowledgeBase EndSession ExportAutomatedReasoningPolicyVersion GenerateQuery
GetAccountDataRetention GetAdvancedPromptOptimizationJob GetAgent GetAgentActionGroup GetAgentAlias GetAgentCollaborator GetAgentKnowledgeBase GetAgentMemory
GetAgentVersion GetAsyncInvoke GetAutomatedReasoningPolicy GetAutomatedReasoningPolicyAnnotations GetAutomatedReasoningPolicyBuildWorkflow
GetAutomatedReasoningPolicyBuildWorkflowResultAssets GetAutomatedReasoningPolicyNextScenario GetAutomatedReasoningPolicyTestCase
GetAutomatedReasoningPolicyTestResult GetBlueprint GetBlueprintOptimizationStatus GetBlueprintRecommendation GetCustomModel GetCustomModelDeployment
GetDataAutomationLibrary GetDataAutomationLibraryEntity GetDataAutomationLibraryIngestionJob GetDataAutomationProject GetDataAutomationStatus GetDataSource
GetDataSourceAuthorizationUrl GetDocumentContent GetEvaluationJob GetExecutionFlowSnapshot GetFlow GetFlowAlias GetFlowExecution GetFlowVersion
GetFoundationModel GetFoundationModelAvailability GetGuardrail GetImportedModel GetInferenceProfile GetIngestedDocumentAcl GetIngestionJob GetInvocationStep
GetInvoke GetKnowledgeBase GetKnowledgeBaseDocuments GetMarketplaceModelEndpoint GetModelCopyJob GetModelCustomizationJob GetModelEvaluationJob
GetModelImportJob GetModelInvocationJob GetModelInvocationLoggingConfiguration GetPrompt GetPromptRouter GetProvisionedModelThroughput GetResourcePolicy
GetRetrievalInstruction GetSession GetUseCaseForModelAccess IngestKnowledgeBaseDocuments InvokeAgent InvokeAutomatedReasoningPolicy
InvokeBlueprintOptimizationAsync InvokeBlueprintRecommendationAsync InvokeBuilder InvokeDataAutomation InvokeDataAutomationAsync
InvokeDataAutomationLibraryIngestionJob InvokeFlow InvokeGuardrailChecks InvokeInlineAgent InvokeModel InvokeModelWithBidirectionalStream
InvokeModelWithResponseStream InvokeTool ListAdvancedPromptOptimizationJobs ListAgentActionGroups ListAgentAliases ListAgentCollaborators
ListAgentKnowledgeBases ListAgentVersions ListAgents ListAsyncInvokes ListAutomatedReasoningPolicies ListAutomatedReasoningPolicyBuildWorkflows
ListAutomatedReasoningPolicyTestCases ListAutomatedReasoningPolicyTestResults ListBlueprints ListCustomModelDeployments ListCustomModels
ListDataAutomationLibraries ListDataAutomationLibraryEntities ListDataAutomationLibraryIngestionJobs ListDataAutomationProjects ListDataSources
ListEnforcedGuardrailsConfiguration ListEvaluationJobs ListFlowAliases ListFlowExecutionEvents ListFlowExecutions ListFlowVersions ListFlows
ListFoundationModelAgreementOffers ListFoundationModels ListGuardrails ListImportedModels ListInferenceProfiles ListIngestionJobs ListInvocationSteps
ListInvocations ListKnowledgeBaseDocuments ListKnowledgeBases ListMarketplaceModelEndpoints ListModelCopyJobs ListModelCustomizationJobs
ListModelEvaluationJobs ListModelImportJobs ListModelInvocationJobs ListPromptRouters ListPrompts ListProvisionedModelThroughputs
ListRetrievalInstructionVersions ListRetrievalInstructions ListSessions ListTagsForResource OptimizePrompt PrepareAgent PrepareFlow PutAccountDataRetention
PutEnforcedGuardrailConfiguration PutFoundationModelEntitlement PutInvocationStep PutModelInvocationLoggingConfiguration PutResourcePolicy
PutUseCaseForModelAccess RegisterMarketplaceModelEndpoint RenderPrompt Rerank Retrieve RetrieveAndGenerate StartAsyncInvoke
StartAutomatedReasoningPolicyBuildWorkflow StartAutomatedReasoningPolicyTestWorkflow StartFlowExecution StartIngestionJob StopAdvancedPromptOptimizationJob
StopEvaluationJob StopFlowExecution StopIngestionJob StopModelCustomizationJob StopModelInvocationJob TagResource UntagResource UpdateAgent
UpdateAgentActionGroup UpdateAgentAlias UpdateAgentCollaborator UpdateAgentKnowledgeBase UpdateAutomatedReasoningPolicy
UpdateAutomatedReasoningPolicyAnnotations UpdateAutomatedReasoningPolicyTestCase UpdateBlueprint UpdateCustomModelDeployment UpdateDataAutomationLibrary
UpdateDataAutomationProject UpdateDataSource UpdateFlow UpdateFlowAlias UpdateGuardrail UpdateKnowledgeBase UpdateMarketplaceModelEndpoint UpdatePrompt
UpdateProvisionedModelThroughput UpdateRetrievalInstruction UpdateSession ValidateFlowDefinition`),
	prefixed("bedrock-mantle:", `ArchiveProject AssociateCustomizedModel CallWithBearerToken CancelFineTuningJob CancelInference ConnectEnvironment CountTokens CreateAgentSession
CreateAgentSessionEvent CreateCustomizedModel CreateFile CreateFineTuningJob CreateInference CreateProject CreateReservation DeleteAgentSession
DeleteCustomizedModel DeleteFile DeleteInference DeleteReservation DisassociateCustomizedModel GetAccountDataRetention GetAgentSession GetCustomizedModel
GetFile GetFineTuningJob GetInference GetModel GetProject GetReservation ListAgentSessionEvents ListAgentSessionItems ListAgentSessions
ListCustomizedModelAssociations ListCustomizedModels ListFiles ListFineTuningJobs ListModels ListProjects ListReservations ListTagsForResource
ListTagsForResources PutAccountDataRetention RegisterEnvironment TagResource UntagResource UpdateProject UpdateReservation`)...)

// otherActions are a sample of what a guard must leave alone.
var otherActions = strings.Fields(`s3:GetObject s3:PutObject s3:ListBucket ec2:RunInstances ec2:DescribeInstances iam:GetRole iam:CreateUser iam:CreateRole iam:TagRole
iam:TagUser iam:PutRolePolicy iam:DeleteRolePolicy iam:AttachRolePolicy iam:DetachRolePolicy iam:UpdateAssumeRolePolicy iam:DeleteRolePermissionsBoundary
iam:PutRolePermissionsBoundary iam:UntagRole iam:DeleteRole iam:PassRole iam:CreateServiceSpecificCredential
iam:ListServiceSpecificCredentials sts:AssumeRole sts:TagSession sts:GetCallerIdentity kms:Decrypt logs:PutLogEvents dynamodb:GetItem lambda:InvokeFunction
sagemaker:InvokeEndpoint secretsmanager:GetSecretValue sqs:SendMessage sns:Publish ce:GetCostAndUsage bcm-data-exports:CreateExport organizations:ListAccounts
bedrock-agentcore:InvokeAgentRuntime aws-marketplace:Subscribe cloudwatch:PutMetricData states:StartExecution transcribe:StartTranscriptionJob q:SendMessage`)

func prefixed(prefix, names string) []string {
	var out []string
	for _, n := range strings.Fields(names) {
		out = append(out, prefix+n)
	}
	return out
}
